use crate::Resource;
use chipset_device::DeviceBuildError;
use chipset_device::ResourceHandle;
use mesh::payload;
use mesh::payload::DecodeError;
use std::collections::BTreeMap;
use std::fmt;

/// Why there is no device for a resource.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// No handle of this kind is registered.
    #[error("cannot create {name}: unknown kind of device `{id}`")]
    UnknownKind {
        /// The device's name.
        name: String,
        /// The kind.
        id: String,
    },
    /// The handle does not decode.
    #[error("cannot create {name}: its configuration is not that of a `{id}`")]
    Decode {
        /// The device's name.
        name: String,
        /// The kind.
        id: String,
        /// What is wrong with the handle.
        #[source]
        source: DecodeError,
    },
    /// The device cannot be built.
    #[error("cannot create {name}")]
    Build {
        /// The device's name.
        name: String,
        /// Why.
        #[source]
        source: DeviceBuildError,
    },
}

type Decoder<T> = Box<dyn Fn(&[u8]) -> Result<Box<T>, DecodeError> + Send + Sync>;

/// The kinds of devices of the class `T`, a trait that their handles implement.
pub struct Registry<T: ?Sized>(BTreeMap<&'static str, Decoder<T>>);

impl<T: ?Sized + 'static> Registry<T> {
    /// Adds the kind of devices that `H` is the handle of. `erase` is `|handle| Box::new(handle)`, which cannot be
    /// written here because it needs to know the trait.
    pub fn register<H: ResourceHandle>(&mut self, erase: fn(H) -> Box<T>) {
        let decode = move |bytes: &[u8]| payload::decode(bytes).map(erase);
        self.0.insert(H::ID, Box::new(decode));
    }

    /// The kinds of devices.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }

    /// What builds the device called `name`.
    pub fn resolve(&self, name: &str, resource: &Resource) -> Result<Box<T>, ResolveError> {
        let Some(decode) = self.0.get(&*resource.id) else {
            return Err(ResolveError::UnknownKind {
                name: name.to_owned(),
                id: resource.id.clone(),
            });
        };
        decode(&resource.handle).map_err(|source| ResolveError::Decode {
            name: name.to_owned(),
            id: resource.id.clone(),
            source,
        })
    }
}

impl<T: ?Sized> Default for Registry<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: ?Sized> fmt::Debug for Registry<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minicbor::Decode;
    use minicbor::Encode;
    use std::error::Error as _;

    /// A class of things that tell their color.
    trait Colored: fmt::Debug {
        fn color(&self) -> Result<String, DeviceBuildError>;
    }

    #[derive(Debug, PartialEq, Encode, Decode)]
    #[cbor(map)]
    struct Lamp {
        #[n(1)]
        color: String,
    }

    impl ResourceHandle for Lamp {
        const ID: &'static str = "lamp";
    }

    impl Colored for Lamp {
        fn color(&self) -> Result<String, DeviceBuildError> {
            match &*self.color {
                "" => Err("no color".into()),
                color => Ok(color.to_owned()),
            }
        }
    }

    #[derive(Debug, PartialEq, Encode, Decode)]
    #[cbor(map)]
    struct Wall {}

    impl ResourceHandle for Wall {
        const ID: &'static str = "wall";
    }

    impl Colored for Wall {
        fn color(&self) -> Result<String, DeviceBuildError> {
            Ok("white".into())
        }
    }

    fn registry() -> Registry<dyn Colored> {
        let mut registry = Registry::<dyn Colored>::default();
        registry.register(|lamp: Lamp| Box::new(lamp));
        registry.register(|wall: Wall| Box::new(wall));
        registry
    }

    fn lamp(color: &str) -> Resource {
        Resource::new(&Lamp {
            color: color.into(),
        })
    }

    #[test]
    fn a_stored_resource_builds_what_its_handle_says() {
        let bytes = payload::encode(&vec![lamp("red"), Resource::new(&Wall {})]);
        let stored: Vec<Resource> = payload::decode(&bytes).unwrap();
        let color = |n: usize| registry().resolve("x", &stored[n]).unwrap().color();
        assert_eq!(color(0).unwrap(), "red");
        assert_eq!(color(1).unwrap(), "white");
        let lamp = stored[0].handle::<Lamp>().unwrap();
        assert_eq!(lamp.unwrap().color, "red");
        assert!(stored[0].handle::<Wall>().is_none());
        assert_eq!(registry().kinds().collect::<Vec<_>>(), ["lamp", "wall"]);
    }

    #[test]
    fn an_unknown_kind_is_an_error_that_names_device_and_kind() {
        let error = Registry::<dyn Colored>::default()
            .resolve("lamp0", &lamp("red"))
            .unwrap_err();
        assert!(matches!(error, ResolveError::UnknownKind { .. }));
        let text = error.to_string();
        assert!(text.contains("lamp0") && text.contains("`lamp`"), "{text}");
    }

    #[test]
    fn a_handle_that_does_not_decode_is_an_error_that_says_which_field() {
        let broken = Resource {
            id: "lamp".into(),
            handle: vec![0xa0],
        };
        let error = registry().resolve("lamp0", &broken).unwrap_err();
        assert!(error.to_string().contains("lamp0"), "{error}");
        let ResolveError::Decode { source, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!(source, DecodeError::MissingField { field: 1 });
        assert!(matches!(broken.handle::<Lamp>(), Some(Err(_))));
    }

    #[test]
    fn a_failure_to_build_keeps_its_cause() {
        let handle = registry().resolve("lamp0", &lamp("")).unwrap();
        let error = ResolveError::Build {
            name: "lamp0".into(),
            source: handle.color().unwrap_err(),
        };
        assert!(error.to_string().contains("lamp0"));
        assert_eq!(error.source().unwrap().to_string(), "no color");
    }
}
