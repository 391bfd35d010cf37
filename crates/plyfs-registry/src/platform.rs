//! Which image of an index fits a machine.
use std::fmt;
use std::str::FromStr;

use oci_spec::image::{Descriptor, ImageIndex};

use crate::error::{Object, RegistryError, Result};

/// An operating system, an architecture and perhaps a variant of it, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Platform {
    /// The machine this program was built for.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", None),
            "arm" => ("arm", Some("v7")),
            "powerpc64" if cfg!(target_endian = "little") => ("ppc64le", None),
            "powerpc64" => ("ppc64", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        Self {
            os: std::env::consts::OS.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// The operating system.
    pub fn os(&self) -> &str {
        &self.os
    }

    /// The architecture.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// How well an image for `offered` serves `self`: lower is better, `None` not at all.
    fn rank(&self, offered: &Self) -> Option<u32> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        let (wanted, has) = (self.level(), offered.level());
        match (wanted, has) {
            (Some(wanted), Some(has)) if has <= wanted => Some(wanted - has),
            (Some(_), Some(_)) => None,
            // A variant that is no number has to be named exactly.
            _ => (self.variant == offered.variant).then_some(0),
        }
    }

    /// The variant as a number; what each architecture means when it names none.
    fn level(&self) -> Option<u32> {
        let default = match self.architecture.as_str() {
            "arm64" => 8,
            "arm" => 7,
            _ => 1,
        };
        match self.variant.as_deref() {
            None | Some("") => Some(default),
            Some(text) => text.strip_prefix('v')?.parse().ok(),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || RegistryError::BadPlatform {
            text: text.to_owned(),
        };
        let parts: Vec<_> = text.split('/').map(str::to_ascii_lowercase).collect();
        if parts.iter().any(String::is_empty) {
            return Err(bad());
        }
        let (os, architecture, variant) = match parts.as_slice() {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant.clone())),
            _ => return Err(bad()),
        };
        let (architecture, variant) = match (architecture.as_str(), variant) {
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("aarch64", variant) => ("arm64", variant),
            ("i386", variant) => ("386", variant),
            ("armhf", None) => ("arm", Some("v7".to_owned())),
            ("armel", None) => ("arm", Some("v6".to_owned())),
            (other, variant) => (other, variant),
        };
        Ok(Self {
            os: os.clone(),
            architecture: architecture.to_owned(),
            variant,
        })
    }
}

/// What an entry of an index says it is for.
fn of_entry(entry: &Descriptor) -> Option<Platform> {
    let platform = entry.platform().as_ref()?;
    Some(Platform {
        os: platform.os().to_string(),
        architecture: platform.architecture().to_string(),
        variant: platform.variant().clone(),
    })
}

/// The entry of an index that serves a platform best; the first of equals.
pub(crate) fn choose<'a>(
    index: &'a ImageIndex,
    wanted: &Platform,
    object: &Object,
) -> Result<&'a Descriptor> {
    let offered = || {
        let entries = index.manifests().iter();
        entries.filter_map(|entry| Some((entry, of_entry(entry)?)))
    };
    let best = offered()
        .filter_map(|(entry, platform)| Some((entry, wanted.rank(&platform)?)))
        .min_by_key(|(_, rank)| *rank);
    if let Some((entry, _)) = best {
        return Ok(entry);
    }
    // An index of one image need not say what for.
    if let [entry] = index.manifests().as_slice()
        && entry.platform().is_none()
    {
        return Ok(entry);
    }
    let mut available: Vec<_> = offered()
        // Attestations are listed for the platform "unknown/unknown".
        .filter(|(_, platform)| platform.os != "unknown")
        .map(|(_, platform)| platform.to_string())
        .collect();
    available.dedup();
    if available.is_empty() {
        available.push("none that names its platform".to_owned());
    }
    Err(RegistryError::NoPlatform {
        object: object.clone(),
        wanted: wanted.to_string(),
        available,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[Option<&str>]) -> ImageIndex {
        let entries: Vec<_> = platforms
            .iter()
            .enumerate()
            .map(|(n, platform)| {
                let mut entry = serde_json::json!({
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "digest": format!("sha256:{n:064x}"),
                    "size": 1,
                });
                if let Some(text) = platform {
                    let p: Platform = text.parse().unwrap();
                    entry["platform"] =
                        serde_json::json!({"os": p.os, "architecture": p.architecture});
                    if let Some(variant) = p.variant {
                        entry["platform"]["variant"] = variant.into();
                    }
                }
                entry
            })
            .collect();
        let text = serde_json::json!({"schemaVersion": 2, "manifests": entries}).to_string();
        ImageIndex::from_reader(text.as_bytes()).unwrap()
    }

    fn chosen(wanted: &str, platforms: &[Option<&str>]) -> std::result::Result<usize, String> {
        let index = index(platforms);
        let object = Object("manifest x".to_owned());
        match choose(&index, &wanted.parse().unwrap(), &object) {
            Ok(entry) => Ok(usize::from_str_radix(entry.digest().digest(), 16).unwrap()),
            Err(e) => Err(e.to_string()),
        }
    }

    #[test]
    fn the_best_of_an_index_is_chosen() {
        let arms = [
            Some("unknown/unknown"),
            Some("linux/arm/v5"),
            Some("linux/arm/v7"),
            Some("linux/arm64/v8"),
            Some("linux/amd64"),
            Some("linux/amd64/v3"),
            Some("windows/amd64"),
        ];
        for (wanted, want) in [
            ("linux/arm/v6", 1),
            ("linux/arm", 2),
            ("linux/armhf", 2),
            ("linux/arm64", 3),
            ("linux/aarch64/v8", 3),
            ("linux/arm64/v9", 3),
            ("linux/amd64", 4),
            ("linux/x86_64/v2", 4),
            ("linux/amd64/v3", 5),
            ("linux/amd64/v4", 5),
            ("windows/amd64", 6),
        ] {
            assert_eq!(chosen(wanted, &arms), Ok(want), "{wanted}");
        }
        assert_eq!(chosen("linux/s390x", &[None]), Ok(0));
    }

    #[test]
    fn what_is_not_there_is_said_with_what_is() {
        let error = chosen(
            "linux/s390x",
            &[
                Some("linux/amd64"),
                Some("linux/arm/v7"),
                Some("unknown/unknown"),
            ],
        )
        .unwrap_err();
        assert!(error.contains("no image for linux/s390x"), "{error}");
        assert!(error.contains("linux/amd64, linux/arm/v7:"), "{error}");
        assert!(chosen("linux/arm/v6", &[Some("linux/arm/v7")]).is_err());
        assert!(chosen("linux/amd64", &[None, None]).is_err());
        for text in ["", "linux", "linux/", "/amd64", "a/b/c/d"] {
            assert!(text.parse::<Platform>().is_err(), "{text:?}");
        }
    }
}
