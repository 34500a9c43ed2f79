//! The numbers of the datagrams that came in, in the order in which they came: a datagram of eight bytes carries one.

use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

/// Runs that are kept at most: beyond, a sender that numbers nothing would fill the guest's memory.
const MOST: usize = 1 << 16;

/// Numbers that came, as runs of neighbours in the order of their arrival. What comes twice, or late, begins another
/// run, and shows.
#[derive(Debug, Default)]
pub struct Seen(Mutex<Vec<[u64; 2]>>);

impl Seen {
    /// A datagram came.
    pub fn note(&self, data: &[u8]) {
        let Ok(number) = data.try_into().map(u64::from_be_bytes) else { return };
        let mut runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some([_, last]) = runs.last_mut().filter(|[_, last]| last.checked_add(1) == Some(number)) {
            *last = number;
        } else if runs.len() < MOST {
            runs.push([number, number]);
        }
    }

    /// All that came so far: first and last number of each run.
    pub fn all(&self) -> Value {
        json!(*self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on only what comes from now on counts.
    pub fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_late_or_twice_shows() {
        let seen = Seen::default();
        for number in [3_u64, 4, 5, 7, 6, 7, 8, 8] {
            seen.note(&number.to_be_bytes());
        }
        seen.note(b"who");
        assert_eq!(seen.all(), json!([[3, 5], [7, 7], [6, 8], [8, 8]]));
        seen.forget();
        assert_eq!(seen.all(), json!([]));
    }
}
