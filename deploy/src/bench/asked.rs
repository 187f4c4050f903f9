//! What is asked for: what can be measured at all, and the loads that follow from it.
//!
//! Invariant: a load that comes from here runs as it is; nothing cuts it down later.

use tramite_gateway::limits::PART_UPLOADS_MAX;

use super::{part::CONTENT_MAX, wire::Load};
use crate::{cli, failure::Failure};

/// The least and the most of a padded body; what is longer travels as a part.
const BODIES: std::ops::RangeInclusive<u64> = 512..=65_536;
/// Bytes of parts that wait at the gateway at a time, unless it is said otherwise: the disk need not hold more.
const PARTS_UNSETTLED: u64 = 512 << 20;

/// What can be measured at all.
pub(super) fn check(asked: &cli::Bench) -> Result<(), Failure> {
    let content = asked.content;
    if content > CONTENT_MAX {
        let sentence = format!("--content {content} is more than a part may have");
        return Err(Failure::usage(sentence, format!("Give at most {}MiB.", CONTENT_MAX >> 20)));
    }
    let is_body = BODIES.contains(&content) && content.is_power_of_two();
    if !is_body && part_of(content).is_none() {
        let sentence = format!("--content {content} is no length of a padded body");
        let advice = "Give a power of two from 512 to 64KiB, or more than that up to 20MiB, which travels as a part.";
        return Err(Failure::usage(sentence, advice));
    }
    if asked.gather.is_some() && !asked.in_flight.is_empty() && asked.in_flight.iter().all(|in_flight| *in_flight == 1)
    {
        let sentence = "with 1 in flight no receipts gather";
        return Err(Failure::usage(sentence, "Leave --gather out, or give a larger --in-flight."));
    }
    let puts = PART_UPLOADS_MAX as u64;
    if part_of(content).is_some() && asked.in_flight.iter().any(|in_flight| u64::from(*in_flight) > puts) {
        let sentence = format!("an institution may put {puts} parts at a time");
        return Err(Failure::usage(sentence, format!("Give --in-flight 1 to {puts} with a content of that length.")));
    }
    Ok(())
}

/// The length of the part that a content of that length travels in, if it does.
pub(super) fn part_of(content: u64) -> Option<u64> {
    (*BODIES.end() + 1..=CONTENT_MAX).contains(&content).then_some(content)
}

/// The loads, a run each.
pub(super) fn loads(asked: &cli::Bench) -> Vec<Load> {
    let part = part_of(asked.content);
    let many = if part.is_some() { PART_UPLOADS_MAX as u64 } else { 256 };
    let in_flight = match asked.in_flight.as_slice() {
        [] => vec![1, many],
        given => given.iter().copied().map(u64::from).collect(),
    };
    let load = |in_flight: u64| {
        let unsettled = match part {
            _ if in_flight == 1 => 1,
            None => (16 * in_flight).max(1_024),
            Some(part) => (PARTS_UNSETTLED / part).clamp(in_flight, 1_024),
        };
        let frame = if part.is_some() { 1 } else { u64::from(asked.frame) };
        fitting(in_flight, asked.unsettled.map_or(unsettled, u64::from), frame)
    };
    in_flight.into_iter().map(load).collect()
}

/// The load that can run: what is in flight is unsettled too, and whole frames make up both. Of frames the largest that do.
fn fitting(in_flight: u64, unsettled: u64, frame: u64) -> Load {
    let in_flight = in_flight.min(unsettled);
    let frame = (1..=frame.min(in_flight)).rev().find(|frame| in_flight.is_multiple_of(*frame)).unwrap_or(1);
    Load { in_flight, unsettled: unsettled - unsettled % frame, frame }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_one_that_whole_frames_can_fill() {
        let cases = [
            ((256, 4_096, 64), (256, 4_096, 64)),
            ((1, 1, 64), (1, 1, 1)),
            ((8, 1_024, 64), (8, 1_024, 8)),
            ((100, 1_600, 64), (100, 1_600, 50)),
            ((256, 100, 64), (100, 100, 50)),
            ((64, 1_000, 64), (64, 960, 64)),
            ((127, 2_032, 64), (127, 2_032, 1)),
        ];
        for ((in_flight, unsettled, frame), expected) in cases {
            let load = fitting(in_flight, unsettled, frame);
            assert_eq!((load.in_flight, load.unsettled, load.frame), expected, "{in_flight} {unsettled} {frame}");
        }
    }
}
