//! Programs of this machine that are linked dynamically, with the files they need to run in the lab.

use super::job::InFile;
use super::job::Lab;
use crate::process;
use anyhow::Context;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

impl Lab {
    /// Takes a program and its shared libraries along, all under the names they have here.
    pub(crate) fn add_host_program(&mut self, program: &str) -> anyhow::Result<()> {
        let path = process::find(program).with_context(|| format!("there is no {program} here"))?;
        let listing = process::output(Command::new("ldd").arg(&path))?;
        for library in libraries(&listing) {
            self.add_host_file(&library);
        }
        // Programs look for their data next to where they are.
        self.add_host_file(&path);
        Ok(())
    }

    /// Takes a file along under the name it has here.
    pub(crate) fn add_host_file(&mut self, path: &Path) {
        if !self.inputs.iter().any(|input| input.source == path) {
            self.inputs.push(InFile {
                source: path.to_owned(),
                name: path.to_string_lossy().into_owned(),
            });
        }
    }
}

/// The files in what ldd(1) prints, the dynamic loader included.
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
