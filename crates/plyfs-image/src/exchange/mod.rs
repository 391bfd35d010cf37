//! Images in and out: OCI layouts (directory or archive), docker-archives, plain root file systems.
mod archive;
mod export;
mod import;

pub use export::{Format, export};
pub use import::{ImportOptions, Imported, import};

use oci_spec::image::{Arch, Os, Platform};

/// Annotation that names an image in a layout.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation of containerd and Docker with the whole name.
const IMAGE_NAME: &str = "io.containerd.image.name";
/// The file that makes a directory an OCI layout, and what it says.
const LAYOUT_FILE: &str = "oci-layout";
const LAYOUT: &[u8] = b"{\"imageLayoutVersion\":\"1.0.0\"}";
const INDEX_FILE: &str = "index.json";
const DOCKER_FILE: &str = "manifest.json";

/// The platform of this machine.
#[must_use]
pub fn host_platform() -> Platform {
    let mut platform = Platform::default();
    platform.set_os(Os::Linux);
    platform.set_architecture(Arch::default());
    platform
}

/// Reads `OS/ARCH[/VARIANT]`.
///
/// # Errors
/// When it has another form.
pub fn parse_platform(text: &str) -> Result<Platform, String> {
    let mut parts = text.split('/');
    let (Some(os), Some(arch), variant, None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(format!(
            "{text:?} is no platform: write OS/ARCH or OS/ARCH/VARIANT"
        ));
    };
    let mut platform = Platform::default();
    platform.set_os(os.into());
    platform.set_architecture(arch.into());
    platform.set_variant(variant.map(str::to_owned));
    Ok(platform)
}

/// Whether an image for `offered` is what somebody who wants `wanted` means.
#[must_use]
pub fn platform_fits(offered: &Platform, wanted: &Platform) -> bool {
    offered.os() == wanted.os()
        && offered.architecture() == wanted.architecture()
        && (wanted.variant().is_none() || offered.variant() == wanted.variant())
}
