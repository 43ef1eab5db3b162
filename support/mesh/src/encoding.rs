//! Encodings of types of the standard library that the derive has none for, named in `#[cbor(with = "..")]`.

/// A `PathBuf` as the bytes of the path: `#[cbor(n(1), with = "mesh::encoding::path")]`.
pub mod path {
    use minicbor::Decoder;
    use minicbor::Encoder;
    use minicbor::decode::Error as DecodeError;
    use minicbor::encode::Error as EncodeError;
    use minicbor::encode::Write;
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::ffi::OsStringExt as _;
    use std::path::Path;
    use std::path::PathBuf;

    /// Writes the bytes.
    pub fn encode<C, W: Write>(
        path: &Path,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        encoder.bytes(path.as_os_str().as_bytes())?.ok()
    }

    /// Reads the bytes.
    pub fn decode<C>(decoder: &mut Decoder<'_>, _: &mut C) -> Result<PathBuf, DecodeError> {
        Ok(OsString::from_vec(decoder.bytes()?.to_vec()).into())
    }
}

/// An `Option<PathBuf>`, absent when `None`: `#[cbor(n(1), with = "mesh::encoding::optional_path", has_nil)]`.
pub mod optional_path {
    use minicbor::Decoder;
    use minicbor::Encoder;
    use minicbor::data::Type;
    use minicbor::decode::Error as DecodeError;
    use minicbor::encode::Error as EncodeError;
    use minicbor::encode::Write;
    use std::path::PathBuf;

    /// Writes the bytes, or null.
    pub fn encode<C, W: Write>(
        path: &Option<PathBuf>,
        encoder: &mut Encoder<W>,
        context: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        match path {
            Some(path) => super::path::encode(path, encoder, context),
            None => encoder.null()?.ok(),
        }
    }

    /// Reads the bytes, or null.
    pub fn decode<C>(
        decoder: &mut Decoder<'_>,
        context: &mut C,
    ) -> Result<Option<PathBuf>, DecodeError> {
        if decoder.datatype()? == Type::Null {
            decoder.skip()?;
            return Ok(None);
        }
        super::path::decode(decoder, context).map(Some)
    }

    /// Whether the field is left out.
    pub fn is_nil(path: &Option<PathBuf>) -> bool {
        path.is_none()
    }

    /// The value of a field that was left out.
    pub fn nil() -> Option<Option<PathBuf>> {
        Some(None)
    }
}

#[cfg(test)]
mod tests {
    use crate::payload;
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;
    use std::path::PathBuf;

    #[derive(Debug, PartialEq, minicbor::Encode, minicbor::Decode)]
    #[cbor(map)]
    struct Files {
        #[cbor(n(1), with = "crate::encoding::path")]
        kernel: PathBuf,
        #[cbor(n(2), with = "crate::encoding::optional_path", has_nil)]
        initrd: Option<PathBuf>,
    }

    #[test]
    fn paths_are_bytes_and_absent_ones_are_left_out() {
        let mut files = Files {
            kernel: OsString::from_vec(vec![b'/', 0xff]).into(),
            initrd: None,
        };
        let bytes = payload::encode(&files);
        assert_eq!(bytes, [0xa1, 1, 0x42, b'/', 0xff]);
        assert_eq!(payload::decode::<Files>(&bytes).as_ref(), Ok(&files));
        let null = [0xa2, 1, 0x42, b'/', 0xff, 2, 0xf6];
        assert_eq!(payload::decode::<Files>(&null).as_ref(), Ok(&files));
        files.initrd = Some("/i".into());
        let bytes = payload::encode(&files);
        assert_eq!(payload::decode::<Files>(&bytes), Ok(files));
        assert!(payload::decode::<Files>(&[0xa1, 1, 0x61, b'/']).is_err());
    }
}
