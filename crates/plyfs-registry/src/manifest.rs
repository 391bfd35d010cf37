//! Manifests and indexes: the bytes as the registry has them, and what they mean.
use oci_spec::image::{Descriptor, Digest, ImageIndex, ImageManifest, MediaType};
use serde::Deserialize;

use crate::digest;
use crate::error::{Object, RegistryError, Result};

/// No manifest may be larger: registries commonly stop at 4 MiB.
pub const MANIFEST_LIMIT: u64 = 4 << 20;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// A manifest or index: its bytes are its identity and are never written anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    bytes: Vec<u8>,
    media_type: String,
    digest: Digest,
}

/// What a manifest means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// One image.
    Image(Box<ImageManifest>),
    /// Images for several platforms.
    Index(Box<ImageIndex>),
}

/// The fields by which the kinds of manifest are told apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    schema_version: Option<u64>,
    media_type: Option<String>,
    config: Option<serde_json::Value>,
    manifests: Option<serde_json::Value>,
    layers: Option<serde_json::Value>,
}

impl Manifest {
    /// Takes the bytes of a manifest; its digest is of the kind of `expected`, else sha256.
    ///
    /// Fails when the bytes are not those that `expected` names. The media type is the one the
    /// manifest names itself, else `told` (what a registry or a layout says it is), else what
    /// its fields say.
    pub fn new(
        bytes: Vec<u8>,
        told: Option<&str>,
        expected: Option<&Digest>,
        object: &Object,
    ) -> Result<Self> {
        let digest = match expected {
            Some(expected) => check(&bytes, expected, object)?,
            None => parse_own(&digest::sha256(&bytes), object)?,
        };
        let outline = outline(&bytes, object)?;
        let media_type = match (outline.media_type.as_deref(), told) {
            (Some(own), _) => own,
            (None, Some(told)) if is_known(told) => told,
            _ if outline.manifests.is_some() => OCI_INDEX,
            _ => OCI_MANIFEST,
        };
        Ok(Self {
            media_type: media_type.to_owned(),
            bytes,
            digest,
        })
    }

    /// The bytes as the registry has them.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What they are, for the `Content-Type` of a push.
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// Their digest, checked.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// A descriptor of the manifest itself.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(
            MediaType::from(self.media_type.as_str()),
            self.bytes.len() as u64,
            self.digest.clone(),
        )
    }

    /// Reads it as an image or an index.
    pub fn parse(&self, object: &Object) -> Result<Parsed> {
        let outline = outline(&self.bytes, object)?;
        let bad = |reason: String| RegistryError::BadManifest {
            object: object.clone(),
            reason,
        };
        if outline.schema_version == Some(1) {
            return Err(bad(
                "it has Docker's old schema 1, which is not supported: push the image again \
                 with a current tool"
                    .to_owned(),
            ));
        }
        // A document that is both could be read as one here and as the other elsewhere.
        if outline.manifests.is_some() && (outline.config.is_some() || outline.layers.is_some()) {
            return Err(bad("it is an image and an index at once".to_owned()));
        }
        let unreadable = |e: &dyn std::fmt::Display| bad(format!("it cannot be read: {e}"));
        match self.media_type.as_str() {
            OCI_INDEX | DOCKER_INDEX => serde_json::from_slice(&self.bytes)
                .map(|index| Parsed::Index(Box::new(index)))
                .map_err(|e| unreadable(&e)),
            OCI_MANIFEST | DOCKER_MANIFEST => serde_json::from_slice(&self.bytes)
                .map(|image| Parsed::Image(Box::new(image)))
                .map_err(|e| unreadable(&e)),
            other => Err(bad(format!("its type {other:?} is none of an image"))),
        }
    }
}

/// The digest, if the bytes are those it names.
fn check(bytes: &[u8], expected: &Digest, object: &Object) -> Result<Digest> {
    let actual = digest::of(bytes, expected)?;
    if actual != expected.as_ref() {
        return Err(RegistryError::WrongDigest {
            object: object.clone(),
            actual,
        });
    }
    Ok(expected.clone())
}

fn parse_own(text: &str, object: &Object) -> Result<Digest> {
    text.parse().map_err(|e| RegistryError::BadManifest {
        object: object.clone(),
        reason: format!("its digest {text}: {e}"),
    })
}

fn outline(bytes: &[u8], object: &Object) -> Result<Outline> {
    serde_json::from_slice(bytes).map_err(|e| RegistryError::BadManifest {
        object: object.clone(),
        reason: format!("it is no JSON object of a manifest: {e}"),
    })
}

fn is_known(media_type: &str) -> bool {
    [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX].contains(&media_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object() -> Object {
        Object("manifest 1 of h/a".to_owned())
    }

    fn parsed(text: &str, told: Option<&str>) -> std::result::Result<Parsed, String> {
        Manifest::new(text.as_bytes().to_vec(), told, None, &object())
            .and_then(|m| m.parse(&object()))
            .map_err(|e| e.to_string())
    }

    fn image(media_type: &str) -> String {
        let zeros = "0".repeat(64);
        format!(
            r#"{{"schemaVersion":2,{media_type}"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:{zeros}","size":2}},"layers":[]}}"#
        )
    }

    #[test]
    fn the_kind_is_what_the_manifest_says_itself() {
        let docker = format!(r#""mediaType":"{DOCKER_MANIFEST}","#);
        for (text, told) in [
            (image(""), None),
            (image(""), Some("text/plain")),
            (image(""), Some(OCI_MANIFEST)),
            (image(&docker), Some(OCI_INDEX)),
        ] {
            assert!(
                matches!(parsed(&text, told), Ok(Parsed::Image(_))),
                "{text} {told:?}"
            );
        }
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        assert!(matches!(parsed(index, None), Ok(Parsed::Index(_))));
        assert!(matches!(
            parsed(index, Some(DOCKER_INDEX)),
            Ok(Parsed::Index(_))
        ));
    }

    #[test]
    fn what_is_no_image_is_refused_with_a_reason() {
        let both = image("\"manifests\":[],");
        for (text, reason) in [
            ("", "no JSON"),
            ("[]", "no JSON"),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#, "schema 1"),
            (both.as_str(), "at once"),
            (
                r#"{"schemaVersion":2,"mediaType":"application/x"}"#,
                "application/x",
            ),
            (r#"{"schemaVersion":2,"layers":[]}"#, "cannot be read"),
        ] {
            let error = parsed(text, None).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn bytes_that_a_digest_does_not_name_are_refused() {
        let text = image("");
        let right: Digest = digest::sha256(text.as_bytes()).parse().unwrap();
        let wrong: Digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
        let bytes = text.into_bytes();
        let manifest = Manifest::new(bytes.clone(), None, Some(&right), &object()).unwrap();
        assert_eq!(manifest.digest(), &right);
        assert_eq!(manifest.bytes(), bytes);
        let error = Manifest::new(bytes, None, Some(&wrong), &object()).unwrap_err();
        assert!(error.to_string().contains(right.as_ref()), "{error}");
    }
}
