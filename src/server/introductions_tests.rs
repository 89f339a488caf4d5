//! What two sides of an introduction hear, in every order of events.

use super::*;

const ASKER: LinkId = LinkId(1);
const TARGET: LinkId = LinkId(2);
const GUID: Guid = Guid(77);

fn begun() -> (Introductions, Instant) {
    let (mut introductions, now) = (Introductions::default(), Instant::now());
    assert_eq!(introductions.begin(now, 9, (ASKER, 5), (TARGET, GUID), false), Ok(()));
    (introductions, now)
}

fn notices(introductions: &mut Introductions) -> Vec<Notice> {
    std::iter::from_fn(|| introductions.poll_notice()).collect()
}

fn failed_code(notice: &Notice) -> Code {
    match notice {
        Notice::Failed {
            link: ASKER,
            request: 5,
            target: GUID,
            code,
            text,
        } => {
            assert!(!text.is_empty());
            *code
        }
        other => panic!("not a failure of the asker's request: {other:?}"),
    }
}

fn assert_empty(introductions: &Introductions) {
    assert!(introductions.attempts.is_empty() && introductions.pairs.is_empty());
    assert!(introductions.involved.is_empty() && introductions.deadlines.is_empty());
}

#[test]
fn an_attempt_ends_when_both_have_said_so() {
    let (mut introductions, _) = begun();
    introductions.received(TARGET, 9, true);
    introductions.ended(TARGET, 9, true);
    assert_eq!(introductions.attempts.len(), 1);
    introductions.ended(ASKER, 9, true);
    assert_empty(&introductions);
    assert_eq!(notices(&mut introductions), []);
}

#[test]
fn a_silent_target_is_unresponsive_after_five_seconds() {
    let (mut introductions, now) = begun();
    // The asker's own acknowledgement is not the target's, nor is a stranger's.
    introductions.received(ASKER, 9, true);
    introductions.received(LinkId(3), 9, true);
    introductions.received(LinkId(3), 9, false);
    introductions.ended(LinkId(3), 9, true);
    assert_eq!(introductions.poll_timeout(), Some(now + REACTION_TIME));
    introductions.handle_timeout(now + REACTION_TIME - Duration::from_millis(1));
    assert_eq!(notices(&mut introductions), []);
    introductions.handle_timeout(now + REACTION_TIME);
    let notices = notices(&mut introductions);
    assert_eq!(failed_code(&notices[0]), Code::TargetUnresponsive);
    assert_eq!(
        notices[1..],
        [Notice::Ended {
            link: TARGET,
            introduction: 9,
            code: Code::Timeout
        }]
    );
    assert_empty(&introductions);
}

#[test]
fn a_target_that_reacts_in_any_way_is_not_unresponsive() {
    let reactions: [fn(&mut Introductions); 3] = [
        |introductions| introductions.received(TARGET, 9, true),
        |introductions| introductions.ended(TARGET, 9, false),
        |introductions| introductions.ended(ASKER, 9, true),
    ];
    for react in reactions {
        let (mut introductions, now) = begun();
        react(&mut introductions);
        assert_eq!(introductions.poll_timeout(), Some(now + VALID_TIME));
        introductions.handle_timeout(now + VALID_TIME);
        assert_eq!(notices(&mut introductions), []);
        assert_empty(&introductions);
    }
}

#[test]
fn a_target_that_declines_ends_it() {
    let (mut introductions, _) = begun();
    introductions.received(TARGET, 9, false);
    let notices = notices(&mut introductions);
    assert_eq!((notices.len(), failed_code(&notices[0])), (1, Code::Refused));
    assert_empty(&introductions);
}

#[test]
fn the_other_side_hears_of_a_lost_one() {
    let (mut introductions, _) = begun();
    introductions.link_closed(TARGET);
    let lost_target = notices(&mut introductions);
    assert_eq!((lost_target.len(), failed_code(&lost_target[0])), (1, Code::TargetLost));
    assert_empty(&introductions);

    let (mut introductions, _) = begun();
    introductions.link_closed(ASKER);
    let ended = Notice::Ended {
        link: TARGET,
        introduction: 9,
        code: Code::TargetLost,
    };
    assert_eq!(notices(&mut introductions), [ended]);
    assert_empty(&introductions);
}

#[test]
fn who_has_ended_hears_nothing_more() {
    let (mut introductions, _) = begun();
    introductions.ended(ASKER, 9, true);
    introductions.link_closed(TARGET);
    assert_eq!(notices(&mut introductions), []);

    let (mut introductions, _) = begun();
    introductions.ended(TARGET, 9, true);
    introductions.cancel(ASKER, 5);
    assert_eq!(notices(&mut introductions), []);
    assert_empty(&introductions);
}

#[test]
fn the_asker_can_give_up() {
    let (mut introductions, _) = begun();
    introductions.cancel(ASKER, 6);
    introductions.cancel(TARGET, 5);
    assert_eq!(introductions.attempts.len(), 1);
    introductions.cancel(ASKER, 5);
    let ended = Notice::Ended {
        link: TARGET,
        introduction: 9,
        code: Code::Cancelled,
    };
    assert_eq!(notices(&mut introductions), [ended]);
    assert_empty(&introductions);
}

#[test]
fn an_asker_that_no_longer_wants_it_says_so() {
    let (mut introductions, _) = begun();
    introductions.received(ASKER, 9, false);
    let ended = Notice::Ended {
        link: TARGET,
        introduction: 9,
        code: Code::Cancelled,
    };
    assert_eq!(notices(&mut introductions), [ended]);
    assert_empty(&introductions);
}

#[test]
fn a_pair_has_one_attempt_whoever_asks() {
    let (mut introductions, now) = begun();
    assert_eq!(
        introductions.begin(now, 10, (ASKER, 6), (TARGET, GUID), false),
        Err(NotBegun::AlreadyInProgress)
    );
    assert_eq!(
        introductions.begin(now, 10, (TARGET, 1), (ASKER, Guid(1)), false),
        Err(NotBegun::AlreadyInProgress)
    );
    // Over for the asker, not yet for the target.
    introductions.ended(ASKER, 9, false);
    assert_eq!(
        introductions.begin(now, 10, (TARGET, 1), (ASKER, Guid(1)), false),
        Err(NotBegun::AlreadyInProgress)
    );
    assert_eq!(introductions.begin(now, 11, (ASKER, 6), (TARGET, GUID), false), Ok(()));
    assert_eq!(introductions.attempts.keys().copied().collect::<Vec<_>>(), [11]);
}

#[test]
fn attempts_are_bounded_for_the_asker_and_for_the_target() {
    let (mut introductions, now) = (Introductions::default(), Instant::now());
    for number in 0..MAX_ATTEMPTS_AS_ASKER as u64 {
        assert_eq!(
            introductions.begin(now, number, (ASKER, 1), (LinkId(100 + number), GUID), false),
            Ok(())
        );
    }
    assert_eq!(
        introductions.begin(now, 5_000, (ASKER, 1), (LinkId(99), GUID), false),
        Err(NotBegun::AskerBusy)
    );
    for number in 0..MAX_ATTEMPTS_AS_TARGET as u64 {
        assert_eq!(
            introductions.begin(now, 10_000 + number, (LinkId(10_000 + number), 1), (ASKER, GUID), false),
            Ok(())
        );
    }
    assert_eq!(
        introductions.begin(now, 5_000, (LinkId(99), 1), (ASKER, GUID), false),
        Err(NotBegun::TargetBusy)
    );
    introductions.link_closed(ASKER);
    assert_empty(&introductions);
}
