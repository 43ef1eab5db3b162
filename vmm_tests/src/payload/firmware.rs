//! Versions of the test firmware.

use anyhow::Context;

/// What precedes the version in an image: three digits.
const MARK: &[u8] = b"test firmware no. ";

/// The image of the test firmware with another version, up to 999.
pub fn firmware_of_version(image: &[u8], version: u16) -> anyhow::Result<Vec<u8>> {
    let at = image
        .windows(MARK.len())
        .position(|window| window == MARK)
        .context("the image is not that of the test firmware")?;
    let digits = format!("{version:03}");
    anyhow::ensure!(digits.len() == 3, "{version} has too many digits");
    let mut image = image.to_vec();
    let from = at + MARK.len();
    let place = image.get_mut(from..from + 3);
    place
        .context("the image has no version")?
        .copy_from_slice(digits.as_bytes());
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_version_changes() {
        let image = b"xx test firmware no. 001 yy";
        let other = firmware_of_version(image, 27).unwrap();
        assert_eq!(other, b"xx test firmware no. 027 yy");
        assert!(firmware_of_version(image, 1000).is_err());
        assert!(firmware_of_version(b"firmware", 1).is_err());
        assert!(firmware_of_version(b"test firmware no. 0", 1).is_err());
    }
}
