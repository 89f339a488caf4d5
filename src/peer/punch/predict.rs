//! Ports that a router which gives them in sequence has given, or will give.
//!
//! *Window*: the sought mapping was made between two samples; with nobody else on the router exactly one number lies between, and each
//! foreign mapping adds one. *Burst*: two such routers. Let a and b be the ports of the two samples, δ1 and δ2 the steps, and n1 and n2 the
//! foreign mappings between sample and burst. The i-th probe of the first side leaves from a + δ1·(i + n1) towards b + δ2·(i + c(i)), the
//! j-th of the second from b + δ2·(j + n2) towards a + δ1·j. The two meet when j = i + n1 and i + c(i) = j + n2, that is: c(i) = n1 + n2. So the
//! first side lets c grow by one with each probe, the second sends one after the other, and whatever the noise was, one pair meets, as long
//! as both bursts are long enough: i = n1 + n2 + 1, j = i + n1.

use crate::wire::introduction::PortForecast;

/// Ports that routers give: not the well-known ones.
const FIRST_PORT: i32 = 1_024;
const LAST_PORT: i32 = 65_535;
/// Most ports of one window: ten foreign mappings a second and a sample that comes two seconds late.
pub const WIDEST_WINDOW: usize = 20;
/// Ports around a window that are tried when none inside it answered: packets that overtook each other on the way to the router, a step that
/// was an artefact.
const AROUND: i32 = 4;
/// Probes of a burst at the side that asked: up to 15 foreign mappings at both routers together; ten a second at each make 3 in a
/// round trip to the server and one between the players of 60 ms each.
pub const ASKER_BURST: i32 = 16;
/// Probes of a burst at the other side: see the module's documentation for the largest j.
pub const TARGET_BURST: i32 = 21;

/// The port that many mappings later, round the end of the range.
pub fn later(port: u16, step: i16, count: i32) -> u16 {
    let range = LAST_PORT - FIRST_PORT + 1;
    let at = i64::from(port) - i64::from(FIRST_PORT) + i64::from(step) * i64::from(count);
    (FIRST_PORT + at.rem_euclid(i64::from(range)) as i32) as u16
}

/// The ports strictly between the two samples, nearest to the first one first. A second sample that is not there, or that does not follow the
/// first one, leaves the next [`WIDEST_WINDOW`].
pub fn window(forecast: &PortForecast) -> Vec<u16> {
    let before = forecast.before.port();
    let ports = (1..=WIDEST_WINDOW as i32).map(|count| later(before, forecast.step, count));
    ports.take_while(|port| *port != forecast.after).collect()
}

/// The ports on both sides of a window.
pub fn around(forecast: &PortForecast) -> Vec<u16> {
    let (before, after, step) = (forecast.before.port(), forecast.after, forecast.step);
    let beyond = (1..=AROUND).map(|count| later(after, step, count));
    let short = (1..=AROUND).map(|count| later(before, step, -count));
    let mut ports: Vec<u16> = beyond.collect();
    ports.extend(short);
    ports
}

/// The ports of a burst, in the order in which they are to be sent to: `base` and `step` are the other side's.
pub fn burst(asker: bool, base: u16, step: i16) -> Vec<u16> {
    if asker {
        // c = 0, 1, 2, …: the port of the i-th probe is i + c = 2i - 1 mappings later.
        let probes = 1..=ASKER_BURST;
        probes.map(|number| later(base, step, 2 * number - 1)).collect()
    } else {
        (1..=TARGET_BURST).map(|number| later(base, step, number)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forecast(before: u16, after: u16, step: i16) -> PortForecast {
        PortForecast {
            round: 0,
            before: format!("198.51.100.7:{before}").parse().unwrap(),
            after,
            step,
        }
    }

    #[test]
    fn a_window_holds_what_lies_between_the_samples() {
        assert_eq!(window(&forecast(5_000, 5_002, 1)), [5_001]);
        assert_eq!(window(&forecast(5_000, 4_994, -2)), [4_998, 4_996]);
        assert_eq!(window(&forecast(65_535, 1_026, 1)), [1_024, 1_025]);
        assert!(window(&forecast(5_000, 5_001, 1)).is_empty());
    }

    #[test]
    fn a_window_without_an_end_is_bounded() {
        for after in [5_000, 4_000] {
            let ports = window(&forecast(5_000, after, 1));
            assert_eq!(ports, (5_001..=5_020).collect::<Vec<u16>>());
        }
        assert_eq!(around(&forecast(5_000, 5_002, 1)).len(), 8);
    }

    #[test]
    fn hostile_forecasts_stay_in_the_range() {
        for (before, after, step) in [(0, 0, i16::MIN), (65_535, 0, i16::MAX), (1, 65_535, -1)] {
            let forecast = forecast(before, after, step);
            let ports = [window(&forecast), around(&forecast), burst(true, before, step)].concat();
            assert!(ports.iter().all(|port| *port >= FIRST_PORT as u16), "{ports:?}");
        }
    }

    /// For every noise that the bursts are made for, one probe of each side is sent from where the other's goes to.
    #[test]
    fn two_bursts_meet_whatever_the_noise() {
        let (a, b, step_a, step_b) = (64_000u16, 3_000u16, 3i16, -2i16);
        for noise_a in 0..=5 {
            for noise_b in 0..=9 {
                let asker = burst(true, b, step_b);
                let target = burst(false, a, step_a);
                let from = |base, step, noise, number: usize| later(base, step, noise + number as i32 + 1);
                let met = asker.iter().enumerate().any(|(i, to_target)| {
                    target.iter().enumerate().any(|(j, to_asker)| {
                        *to_target == from(b, step_b, noise_b, j) && *to_asker == from(a, step_a, noise_a, i)
                    })
                });
                assert!(met, "{noise_a} and {noise_b}");
            }
        }
    }
}
