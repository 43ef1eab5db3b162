//! Requests that the disk works on.

use virtio::Chain;

/// A request on its way.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) chain: Chain,
    /// Operations that have not completed.
    pub(crate) pending: usize,
    pub(crate) failed: bool,
    /// A flush is still to follow, so that what was written lasts.
    pub(crate) flush_after: bool,
}

/// The requests on their way, by the token of their operations.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    places: Vec<Option<Flight>>,
    free: Vec<usize>,
}

impl Flights {
    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(crate) fn insert(&mut self, flight: Flight) -> u64 {
        match self.free.pop() {
            Some(place) => {
                self.places[place] = Some(flight);
                place as u64
            }
            None => {
                self.places.push(Some(flight));
                (self.places.len() - 1) as u64
            }
        }
    }

    pub(crate) fn get(&mut self, token: u64) -> Option<&mut Flight> {
        self.places.get_mut(usize::try_from(token).ok()?)?.as_mut()
    }

    pub(crate) fn remove(&mut self, token: u64) -> Option<Flight> {
        let place = usize::try_from(token).ok()?;
        let flight = self.places.get_mut(place)?.take()?;
        self.free.push(place);
        Some(flight)
    }

    /// Removes any one.
    pub(crate) fn pop(&mut self) -> Option<Flight> {
        let place = self.places.iter().position(Option::is_some)?;
        self.remove(place as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flight(pending: usize) -> Flight {
        Flight {
            chain: Chain::default(),
            pending,
            failed: false,
            flush_after: false,
        }
    }

    #[test]
    fn places_are_used_again() {
        let mut flights = Flights::default();
        let a = flights.insert(flight(1));
        let b = flights.insert(flight(2));
        assert_eq!(flights.get(b).unwrap().pending, 2);
        assert_eq!(flights.remove(a).unwrap().pending, 1);
        assert!(flights.remove(a).is_none() && flights.get(a).is_none());
        assert_eq!(flights.insert(flight(3)), a);
        assert_eq!(flights.len(), 2);
        assert!(flights.get(u64::MAX).is_none() && flights.remove(7).is_none());
        assert!(flights.pop().is_some() && flights.pop().is_some());
        assert!(flights.pop().is_none());
        assert_eq!(flights.len(), 0);
    }
}
