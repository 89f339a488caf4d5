//! Routers that are none: garbage, silence, a megabyte; on sockets of the loopback interface.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use super::*;
use crate::codes::MappingProtocol;

/// A bound for a broken run.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a router is given here: enough for a healthy one on a busy machine.
const TIME: Duration = Duration::from_secs(2);

fn wish() -> Wish {
    Wish {
        internal: "127.0.0.1:51234".parse().unwrap(),
        external: 51234,
        lifetime: 600,
        timeout: TIME,
    }
}

/// An address that answers searches with that text; `{http}` in it becomes the address of a web server that answers requests, one
/// after the other, with what `answers` gives for the path (`None`: never).
fn fake(search: &str, answer: impl Fn(&str, SocketAddr) -> Option<Vec<u8>> + Send + 'static) -> SocketAddr {
    let web = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let http = web.local_addr().unwrap();
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = udp.local_addr().unwrap();
    let search = search.replace("{http}", &http.to_string());
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((_, from)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(search.as_bytes(), from);
        }
    });
    thread::spawn(move || {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = web.accept() {
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            // The head, and the body if it is a SOAP request.
            while !is_whole(&request) {
                match stream.read(&mut buffer) {
                    Ok(length) if length > 0 => request.extend_from_slice(&buffer[..length]),
                    _ => break,
                }
            }
            let text = String::from_utf8_lossy(&request).into_owned();
            match answer(&text, http) {
                Some(answer) => drop(stream.write_all(&answer)),
                None => kept.push(stream),
            }
        }
    });
    address
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    text.starts_with("GET") && text.contains("\r\n\r\n")
        || text.contains("</s:Envelope>")
        || text.contains(":Envelope>\r\n")
}

const FOUND: &str = "HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\nLOCATION: http://{http}/root.xml\r\n\r\n";

fn page(body: &str) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/xml\r\n";
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

const ROOT: &str = "<?xml version=\"1.0\"?><root xmlns=\"urn:schemas-upnp-org:device-1-0\"><device><serviceList><service>\
    <serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>/control</controlURL>\
    <SCPDURL>/scpd.xml</SCPDURL></service></serviceList></device></root>";

fn schema() -> String {
    let action = |name: &str, arguments: &[&str]| {
        let argument = |name: &&str| format!("<argument><name>{name}</name><direction>in</direction></argument>");
        let arguments: String = arguments.iter().map(argument).collect();
        format!("<action><name>{name}</name><argumentList>{arguments}</argumentList></action>")
    };
    let add = [
        "NewRemoteHost",
        "NewExternalPort",
        "NewProtocol",
        "NewInternalPort",
        "NewInternalClient",
        "NewEnabled",
        "NewPortMappingDescription",
        "NewLeaseDuration",
    ];
    let actions = action("AddPortMapping", &add) + &action("DeletePortMapping", &add[..3]);
    format!(
        "<?xml version=\"1.0\"?><scpd xmlns=\"urn:schemas-upnp-org:service-1-0\"><actionList>{actions}</actionList></scpd>"
    )
}

fn soap(body: &str) -> Vec<u8> {
    page(&format!(
        "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body>{body}</s:Body></s:Envelope>"
    ))
}

fn external(ip: &str) -> Vec<u8> {
    soap(&format!(
        "<u:GetExternalIPAddressResponse xmlns:u=\"urn:schemas-upnp-org:service:WANIPConnection:1\">\
         <NewExternalIPAddress>{ip}</NewExternalIPAddress></u:GetExternalIPAddressResponse>"
    ))
}

fn done(action: &str) -> Vec<u8> {
    soap(&format!(
        "<u:{action}Response xmlns:u=\"urn:schemas-upnp-org:service:WANIPConnection:1\"></u:{action}Response>"
    ))
}

fn fault(code: u32) -> Vec<u8> {
    let body = format!(
        "<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail><UPnPError \
         xmlns=\"urn:schemas-upnp-org:control-1-0\"><errorCode>{code}</errorCode><errorDescription>scripted</errorDescription>\
         </UPnPError></detail></s:Fault>"
    );
    soap(&body)
}

/// A router that behaves up to the control requests, which `control` answers.
fn router(control: impl Fn(&str) -> Option<Vec<u8>> + Send + 'static) -> SocketAddr {
    fake(FOUND, move |request, _| {
        if request.starts_with("GET /root.xml") {
            Some(page(ROOT))
        } else if request.starts_with("GET /scpd.xml") {
            Some(page(&schema()))
        } else {
            control(request)
        }
    })
}

/// What comes of a wish that is carried out like the node's.
fn ask(search: SocketAddr) -> (PortMapper, Receiver<MappingAnswer>) {
    let (sender, answers) = channel();
    let mapper = PortMapper::new(Arc::new(move |answer| {
        if !matches!(answer, MappingAnswer::Progress { .. }) {
            let _ = sender.send(answer);
        }
    }));
    let mut lanes = mapper.shared.lanes.lock();
    let lane = lane_of(&mut lanes, MappingProtocol::Upnp, false).unwrap();
    lanes[lane].client = Some(Client::Upnp(upnp::Client::searching(search)));
    drop(lanes);
    order(&mapper, 7);
    (mapper, answers)
}

fn order(mapper: &PortMapper, id: MappingId) {
    let wish = wish();
    mapper.order(MappingOrder::Map {
        id,
        protocol: MappingProtocol::Upnp,
        internal: wish.internal,
        external: wish.external,
        lifetime: wish.lifetime,
        timeout: wish.timeout,
    });
}

fn failure(search: SocketAddr) -> Refusal {
    let (_mapper, answers) = ask(search);
    match answers.recv_timeout(PATIENCE) {
        Ok(MappingAnswer::Failed { id: 7, why, text }) => Refusal { why, text },
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_router_that_says_nothing_or_nonsense_is_a_clear_failure() {
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let nobody = failure(silent.local_addr().unwrap());
    assert!(
        nobody.why == MappingFailure::Silent && nobody.text.contains("no "),
        "{nobody:?}"
    );

    type Answer = fn(&str, SocketAddr) -> Option<Vec<u8>>;
    let cases: [(&str, &str, Answer); 8] = [
        ("a search answered with garbage", "\u{0}\u{7f}garbage", |_, _| None),
        (
            "a third party's address",
            "HTTP/1.1 200 OK\r\nLOCATION: http://192.0.2.1:80/root.xml\r\n\r\n",
            |_, _| None,
        ),
        ("silence on TCP", FOUND, |_, _| None),
        ("no HTTP", FOUND, |_, _| Some(vec![0xff; 4096])),
        ("an empty answer", FOUND, |_, _| Some(Vec::new())),
        ("no XML", FOUND, |_, _| Some(page("garbage"))),
        ("a megabyte of text", FOUND, |_, _| {
            Some(page(&format!("<root>{}</root>", "a".repeat(1 << 20))))
        }),
        ("a hundred thousand levels", FOUND, |_, _| {
            Some(page(&"<a>".repeat(100_000)))
        }),
    ];
    for (name, search, answer) in cases {
        let failure = failure(fake(search, answer));
        assert_eq!(failure.why, MappingFailure::Silent, "{name}: {failure:?}");
        assert!(
            failure.text.contains("no ") && failure.text.len() < 300,
            "{name}: {failure:?}"
        );
    }
}

#[test]
fn control_requests_that_go_wrong_say_why() {
    let address = || external("45.60.1.1");
    let conflict = failure(router(move |request| {
        Some(if request.contains("GetExternal") {
            address()
        } else {
            fault(718)
        })
    }));
    assert_eq!(conflict.why, MappingFailure::Conflict, "{conflict:?}");
    let refused = failure(router(move |request| {
        Some(if request.contains("GetExternal") {
            address()
        } else {
            fault(606)
        })
    }));
    assert_eq!(refused.why, MappingFailure::Refused, "{refused:?}");
    for (name, answer) in [
        ("garbage", page("garbage")),
        ("no address", external("router.example")),
        ("a megabyte", page(&"x".repeat(2 << 20))),
    ] {
        let refused = failure(router(move |_| Some(answer.clone())));
        assert!(
            refused.why != MappingFailure::Conflict && !refused.text.is_empty() && refused.text.len() < 500,
            "{name}: {refused:?}"
        );
    }
    // What miniupnpd says behind another router.
    let nowhere = failure(router(|_| Some(external(""))));
    assert_eq!(nowhere.why, MappingFailure::NoPublicAddress, "{nowhere:?}");
    let hanging = failure(router(move |request| request.contains("GetExternal").then(address)));
    assert_eq!(hanging.why, MappingFailure::Silent, "{hanging:?}");
}

#[test]
fn a_port_is_given_renewed_and_taken_back() {
    let (adds, deletes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (added, deleted) = (adds.clone(), deletes.clone());
    let search = router(move |request| {
        Some(if request.contains("#GetExternalIPAddress") {
            external("45.60.1.1")
        } else if request.contains("#AddPortMapping") {
            added.fetch_add(1, Ordering::SeqCst);
            // This one knows no leases.
            let permanent = request.contains("<NewLeaseDuration>0</NewLeaseDuration>");
            if permanent { done("AddPortMapping") } else { fault(725) }
        } else {
            deleted.fetch_add(1, Ordering::SeqCst);
            done("DeletePortMapping")
        })
    });
    let (mapper, answers) = ask(search);
    for id in [7, 8] {
        let granted = answers.recv_timeout(PATIENCE).expect("an answer");
        let expected = MappingAnswer::Granted {
            id,
            external: "45.60.1.1:51234".parse().unwrap(),
            lifetime: 0,
            epoch: None,
        };
        assert_eq!(granted, expected);
        if id == 7 {
            order(&mapper, 8);
        }
    }
    assert_eq!(adds.load(Ordering::SeqCst), 4);
    mapper.order(MappingOrder::Unmap { id: 8 });
    idle(&mapper);
    assert_eq!(deletes.load(Ordering::SeqCst), 1);
    // There is nothing left to take back; and an order that never was means nothing.
    mapper.order(MappingOrder::Unmap { id: 8 });
    mapper.order(MappingOrder::Unmap { id: 99 });
    idle(&mapper);
    assert_eq!(deletes.load(Ordering::SeqCst), 1);
}

#[test]
fn what_a_dropped_node_was_given_is_taken_back() {
    let (sender, deleted) = channel();
    let search = router(move |request| {
        Some(if request.contains("#GetExternalIPAddress") {
            external("45.60.1.1")
        } else if request.contains("#AddPortMapping") {
            done("AddPortMapping")
        } else {
            let _ = sender.send(());
            done("DeletePortMapping")
        })
    });
    let (mapper, answers) = ask(search);
    assert!(matches!(
        answers.recv_timeout(PATIENCE),
        Ok(MappingAnswer::Granted { .. })
    ));
    drop(mapper);
    deleted.recv_timeout(PATIENCE).expect("it is taken back");
}

fn idle(mapper: &PortMapper) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !mapper.is_idle() {
        assert!(std::time::Instant::now() < deadline, "it never rests");
        thread::yield_now();
    }
}

#[test]
fn a_newer_order_interrupts_an_older_one() {
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (mapper, answers) = ask(silent.local_addr().unwrap());
    for id in 8..40 {
        order(&mapper, id);
    }
    // The others are not answered.
    let id = match answers.recv_timeout(PATIENCE) {
        Ok(MappingAnswer::Failed { id, .. }) => id,
        other => panic!("{other:?}"),
    };
    assert_eq!(id, 39);
    idle(&mapper);
    assert!(answers.try_recv().is_err());
}
