//! Copies dynamically linked programs of this machine into the lab, with the libraries they need.

use super::job::InFile;
use super::job::Lab;
use crate::process;
use anyhow::Context;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

impl Lab {
    /// Adds a program and its shared libraries, all under the paths they have here.
    pub(crate) fn add_host_program(&mut self, program: &str) -> anyhow::Result<()> {
        let path =
            process::find(program).with_context(|| format!("cannot find the program {program}"))?;
        let listing = process::output(Command::new("ldd").arg(&path))?;
        for library in libraries(&listing) {
            self.add_host_file(&library);
        }
        // The same path as here: programs look for their data relative to it.
        self.add_host_file(&path);
        Ok(())
    }

    /// Adds a file under the path it has here.
    pub(crate) fn add_host_file(&mut self, path: &Path) {
        if !self.inputs.iter().any(|input| input.source == path) {
            self.inputs.push(InFile {
                source: path.to_owned(),
                name: path.to_string_lossy().into_owned(),
            });
        }
    }
}

/// Finds the files in the output of ldd(1), the dynamic loader included.
fn libraries(listing: &str) -> Vec<PathBuf> {
    listing
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_is_one_of_the_libraries() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibz.so.1 => /lib/x/libz.so.1 (0x00007f)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = ["/lib/x/libz.so.1", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(libraries(listing), expected.map(PathBuf::from));
    }
}
