//! Many boards: flashed in waves that stop at the first that is not well, and asked how they are, beside each other.

use crate::flash::Outcome;
use crate::remote::Board;
use crate::{Error, Result};
use std::thread;

/// What became of a board in a fleet.
#[derive(Debug)]
pub enum Fate {
    /// It was flashed, or could not be.
    Tried(Result<Outcome>),
    /// An earlier wave was not well, so it was left alone.
    Spared,
}

impl Fate {
    /// Whether the next wave may follow.
    pub fn is_healthy(&self) -> bool {
        matches!(self, Self::Tried(Ok(outcome)) if outcome.ending.is_healthy())
    }
}

/// Flashes boards in waves of `size`, those of a wave beside each other. After the first wave in which one is not well
/// (unreachable, refused, rolled back, or still on trial) the rest is spared.
pub fn waves<F>(boards: &[Board], size: usize, flash: F) -> Vec<Fate>
where
    F: Fn(&Board) -> Result<Outcome> + Sync,
{
    let mut fates = Vec::new();
    for wave in boards.chunks(size.max(1)) {
        if !fates.iter().all(Fate::is_healthy) {
            fates.extend(wave.iter().map(|_| Fate::Spared));
            continue;
        }
        fates.extend(beside(wave, &flash).into_iter().map(Fate::Tried));
    }
    fates
}

/// Asks boards beside each other; the answers are in the boards' order.
pub fn beside<T: Send>(boards: &[Board], ask: impl Fn(&Board) -> Result<T> + Sync) -> Vec<Result<T>> {
    thread::scope(|scope| {
        let asked: Vec<_> = boards.iter().map(|board| (board, scope.spawn(|| ask(board)))).collect();
        let answer = |(board, thread): (&Board, thread::ScopedJoinHandle<Result<T>>)| {
            thread.join().unwrap_or_else(|_| {
                let reason = "this program failed while asking it. Please report this".into();
                Err(Error::Board { board: board.address.clone(), reason, code: 70 })
            })
        };
        asked.into_iter().map(answer).collect()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::flash::Ending;
    use std::sync::Mutex;

    #[test]
    fn waves_stop_behind_the_first_that_is_not_well() {
        let boards: Vec<Board> = ["a", "b", "c", "d", "e"].iter().map(|a| Board::at(a).unwrap()).collect();
        let tried = Mutex::new(Vec::new());
        let fates = waves(&boards, 2, |board| {
            tried.lock().unwrap().push(board.address.clone());
            let ending = if board.address == "c" { Ending::RolledBack } else { Ending::Committed };
            Ok(Outcome { ending, before: None, sent: 0, last: String::new() })
        });
        let mut tried = tried.into_inner().unwrap();
        tried.sort();
        assert_eq!(tried, ["a", "b", "c", "d"]);
        assert!(matches!(fates[4], Fate::Spared) && !fates[2].is_healthy() && fates[3].is_healthy());
    }
}
