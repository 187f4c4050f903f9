//! Places that are counted for each institution: what one of them may hold open at a time, so that its memory is bounded whatever it
//! does. A place is free again when it is dropped. It knows names and numbers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tramite_proto::reason::{Reason, Refused};

/// So many places for each institution.
#[derive(Debug)]
pub struct Places {
    most: usize,
    taken: Mutex<HashMap<String, usize>>,
}

/// One of them.
#[derive(Debug)]
pub struct Place {
    of: Arc<Places>,
    name: String,
}

impl Places {
    /// `most` for each institution.
    #[must_use]
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::default() })
    }

    /// Takes one.
    ///
    /// # Errors
    /// RATE_LIMITED when all are taken.
    pub fn take(self: &Arc<Self>, name: &str) -> Result<Place, Refused> {
        let mut taken = self.lock();
        let count = taken.entry(name.to_owned()).or_default();
        if *count >= self.most {
            let detail = format!("{} of these calls are open already; end one first.", self.most);
            return Err(Refused::new(Reason::RateLimited, detail));
        }
        *count += 1;
        Ok(Place { of: Arc::clone(self), name: name.to_owned() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.of.lock();
        if let Some(count) = taken.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_institution_takes_no_more_than_its_places_and_nobody_elses() {
        let places = Places::new(2);
        let (one, _two) = (places.take("inps").unwrap(), places.take("inps").unwrap());
        assert_eq!(places.take("inps").unwrap_err().reason, Reason::RateLimited);
        places.take("caritas").unwrap();
        drop(one);
        places.take("inps").unwrap();
    }
}
