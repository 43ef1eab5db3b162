//! The host's files in a configuration.

use chipset::DebugPortHandle;
use chipset_device::DeviceHandle;
use disk_spec::DiskSource;
use disk_spec::VirtioBlkHandle;
use openvmm_defs::config::Igvm;
use openvmm_defs::config::IgvmHost;
use openvmm_defs::config::IgvmPcUefi;
use openvmm_defs::config::LoadMode;
use openvmm_defs::config::UefiKernel;
use openvmm_defs::config::UefiVariables;
use openvmm_defs::config::VmConfig;
use serial_16550::Serial16550Handle;
use serial_16550::SerialEnd;
use std::io;
use std::path::PathBuf;
use vm_resource::Resource;

/// Makes the paths of files independent of the working directory.
pub(super) fn absolute(config: &mut VmConfig) -> io::Result<()> {
    let mut paths: Vec<&mut PathBuf> = Vec::new();
    paths.extend(&mut config.memory.file);
    paths.extend(&mut config.vmgs);
    match &mut config.load_mode {
        LoadMode::LinuxDirect(linux) => {
            paths.push(&mut linux.kernel);
            paths.extend(&mut linux.initrd);
        }
        LoadMode::PcUefi(uefi) => {
            paths.push(&mut uefi.code);
            paths.extend(variables(&mut uefi.variables));
            paths.extend(kernel(&mut uefi.kernel));
        }
        LoadMode::HypervUefi(uefi) => paths.push(&mut uefi.firmware),
        LoadMode::Igvm(Igvm { file, host, .. }) => {
            paths.push(file);
            if let IgvmHost::PcUefi(IgvmPcUefi {
                variables: file,
                kernel: image,
            }) = host
            {
                paths.extend(variables(file));
                paths.extend(kernel(image));
            }
        }
    }
    for path in paths {
        *path = std::path::absolute(&path)?;
    }
    let pci = config.pci_devices.iter_mut();
    let chipset = config.chipset_devices.iter_mut();
    let resources = pci
        .map(|device| &mut device.resource)
        .chain(chipset.map(|device| &mut device.resource));
    for resource in resources {
        change(resource, |disk: &mut VirtioBlkHandle| {
            match &mut disk.disk.source {
                DiskSource::File(path) | DiskSource::Overlay(path) => make_absolute(path),
                DiskSource::Memory { .. } => Ok(()),
            }
        })?;
        change(resource, |port: &mut Serial16550Handle| end(&mut port.end))?;
        change(resource, |port: &mut DebugPortHandle| end(&mut port.end))?;
    }
    Ok(())
}

fn variables(variables: &mut UefiVariables) -> Option<&mut PathBuf> {
    match variables {
        UefiVariables::File(path) | UefiVariables::Memory(Some(path)) => Some(path),
        UefiVariables::Memory(None) | UefiVariables::Vmgs => None,
    }
}

fn kernel(kernel: &mut Option<UefiKernel>) -> Vec<&mut PathBuf> {
    let mut paths = Vec::new();
    if let Some(UefiKernel { kernel, initrd, .. }) = kernel {
        paths.push(kernel);
        paths.extend(initrd);
    }
    paths
}

fn make_absolute(path: &mut PathBuf) -> io::Result<()> {
    *path = std::path::absolute(&path)?;
    Ok(())
}

fn end(end: &mut SerialEnd) -> io::Result<()> {
    match end {
        SerialEnd::File(path) | SerialEnd::Listen(path) => make_absolute(path),
        SerialEnd::Console | SerialEnd::Stderr | SerialEnd::Pty | SerialEnd::ListenTcp(_) => Ok(()),
    }
}

/// Changes the handle of a resource, if it is of this kind.
fn change<H: DeviceHandle>(
    resource: &mut Resource,
    change: impl FnOnce(&mut H) -> io::Result<()>,
) -> io::Result<()> {
    if let Some(Ok(mut handle)) = resource.handle::<H>() {
        change(&mut handle)?;
        *resource = Resource::new(&handle);
    }
    Ok(())
}
