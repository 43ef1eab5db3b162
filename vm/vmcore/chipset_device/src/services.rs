use crate::LineError;
use crate::LineInterrupt;
use crate::LineTarget;
use crate::interrupt::SharedLine;
use parking_lot::Mutex;
use std::any::Any;
use std::any::TypeId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a machine and its devices offer to the devices built later, and to the machine: at most one value of each type.
///
/// The type is the name, so a crate that defines a service (a power-management block's control, say) and a crate that
/// uses it need to agree on nothing else, and this crate knows neither.
#[derive(Default)]
pub struct Services(BTreeMap<TypeId, Box<dyn Any + Send + Sync>>);

/// A device asks for something that its machine does not offer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the machine does not offer {service}")]
pub struct MissingService {
    /// The type asked for.
    pub service: &'static str,
}

impl Services {
    /// Offers `service`. It replaces an earlier one of its type.
    pub fn offer<T: Any + Send + Sync>(&mut self, service: T) {
        self.0.insert(TypeId::of::<T>(), Box::new(service));
    }

    /// The service of type `T`.
    pub fn get<T: Any>(&self) -> Result<&T, MissingService> {
        let service = self.0.get(&TypeId::of::<T>());
        service
            .and_then(|service| service.downcast_ref())
            .ok_or(MissingService {
                service: std::any::type_name::<T>(),
            })
    }
}

/// The number of VPs: a service, for devices that have a queue for each.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct VpCount(pub u32);

/// The pins of the I/O APIC of a PC.
const LINES: u32 = 24;

/// The interrupt lines into a machine's interrupt controllers: a service that the machine offers or, in its place, the
/// I/O APIC. Devices may share a line.
pub struct InterruptLines {
    target: Arc<dyn LineTarget>,
    lines: Mutex<BTreeMap<u32, Arc<SharedLine>>>,
}

impl InterruptLines {
    /// Lines that end at `target`.
    pub fn new(target: Arc<dyn LineTarget>) -> Self {
        Self {
            target,
            lines: Mutex::default(),
        }
    }

    /// A further source on the line of global system interrupt `gsi`, 0 to 23.
    pub fn line(&self, gsi: u32) -> Result<LineInterrupt, LineError> {
        if gsi >= LINES {
            return Err(LineError::NotThere { gsi });
        }
        let mut lines = self.lines.lock();
        let line = lines.entry(gsi);
        line.or_insert_with(|| SharedLine::new(gsi, self.target.clone()))
            .source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_found_by_its_type() {
        let mut services = Services::default();
        services.offer(VpCount(2));
        services.offer(VpCount(3));
        assert_eq!(services.get(), Ok(&VpCount(3)));
        let missing = services.get::<InterruptLines>().err().unwrap();
        assert!(missing.to_string().contains("InterruptLines"), "{missing}");
    }

    #[test]
    fn sources_of_one_line_share_its_level() {
        struct Record(Mutex<Vec<(u32, bool)>>);
        impl LineTarget for Record {
            fn set_line(&self, gsi: u32, high: bool) {
                self.0.lock().push((gsi, high));
            }
        }
        let record = Arc::new(Record(Mutex::default()));
        let lines = InterruptLines::new(record.clone());
        let (a, b) = (lines.line(4).unwrap(), lines.line(4).unwrap());
        a.set(true);
        b.set(true);
        a.set(false);
        b.set(false);
        lines.line(23).unwrap().set(true);
        assert_eq!(*record.0.lock(), [(4, true), (4, false), (23, true)]);
    }
    #[test]
    fn a_line_that_does_not_exist_or_is_full_is_refused() {
        struct Nothing;
        impl LineTarget for Nothing {
            fn set_line(&self, _gsi: u32, _high: bool) {}
        }
        let lines = InterruptLines::new(Arc::new(Nothing));
        for gsi in [24, u32::MAX] {
            assert_eq!(lines.line(gsi).err(), Some(LineError::NotThere { gsi }));
        }
        for _ in 0..64 {
            assert!(lines.line(4).is_ok());
        }
        assert_eq!(lines.line(4).err(), Some(LineError::Full { gsi: 4 }));
        assert!(lines.line(5).is_ok());
    }
}
