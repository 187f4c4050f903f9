//! The machine: how many files it lets a process have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::failure::Failure;

/// Files that a process has open besides the connections of institutions: the store's, logs, listeners.
const FILES_BESIDE: u64 = 512;

/// Lets this process, and those that it starts, have as many files open as the system allows; fails when so many connections need more.
pub(super) fn allow_connections(connections: u64) -> Result<(), Failure> {
    let limit = raised(getrlimit(Resource::Nofile), connections + FILES_BESIDE)?;
    setrlimit(Resource::Nofile, limit)
        .map_err(|error| Failure::internal("the limit of open files cannot be raised").because(&error))
}

/// The limit as high as it may be, when that is enough.
fn raised(limit: Rlimit, needed: u64) -> Result<Rlimit, Failure> {
    match limit.maximum {
        Some(most) if most < needed => {
            let sentence = format!("a process needs {needed} open files for that, and may have {most}");
            let advice = "Ask for fewer --idle and --recipients, or raise the hard limit (ulimit -Hn).";
            Err(Failure::usage(sentence, advice))
        }
        most => Ok(Rlimit { current: most, maximum: most }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_is_raised_as_far_as_it_goes_and_too_low_a_one_is_said() {
        let limit = Rlimit { current: Some(1_024), maximum: Some(4_096) };
        assert_eq!(raised(limit.clone(), 2_000).unwrap().current, Some(4_096));
        let failure = raised(limit, 5_512).unwrap_err();
        assert!(failure.sentence.contains("5512") && failure.sentence.contains("4096"), "{failure}");
    }
}
