//! One repository of a registry: manifests, tags, and whether a blob is there.
use oci_spec::image::{Descriptor, Digest, ImageManifest};
use serde::Deserialize;
use ureq::http::{Method, header};

use crate::client::{Call, Client};
use crate::error::{Object, RegistryError, Result};
use crate::http::Answer;
use crate::manifest::{
    DOCKER_INDEX, DOCKER_MANIFEST, MANIFEST_LIMIT, Manifest, OCI_INDEX, OCI_MANIFEST, Parsed,
};
use crate::platform::{self, Platform};
use crate::url;

/// An index may name an index; deeper ones are made to annoy.
const DEPTH: usize = 3;
const TAGS_LIMIT: u64 = 16 << 20;
/// Pages of tags; a registry that never ends the list is left at this.
const PAGES: usize = 1000;
/// What the registry itself adds to a manifest, against what we know of it.
const DIGEST_HEADER: &str = "docker-content-digest";

/// One repository of a registry.
#[derive(Debug, Clone)]
pub struct Repository<'a> {
    pub(crate) client: &'a Client,
    pub(crate) name: String,
}

/// An image that was chosen, and how it was found.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The manifest of the image.
    pub manifest: Manifest,
    /// What it says.
    pub image: ImageManifest,
    /// The index it was chosen from, if the name led to one.
    pub index: Option<Manifest>,
}

impl<'a> Repository<'a> {
    pub(crate) fn new(client: &'a Client, name: &str) -> Self {
        Self {
            client,
            name: name.to_owned(),
        }
    }

    /// Host and name, as in `docker.io/library/alpine`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.client.host(), self.name)
    }

    /// What an error calls a thing of this repository.
    pub(crate) fn object(&self, what: &str, which: impl std::fmt::Display) -> Object {
        Object(format!("{what} {which} of {}", self.full_name()))
    }

    pub(crate) fn url(&self, rest: &str) -> Result<String> {
        Ok(format!("{}/v2/{}/{rest}", self.client.base()?, self.name))
    }

    pub(crate) fn pull_scope(&self) -> String {
        format!("repository:{}:pull", self.name)
    }

    pub(crate) fn push_scope(&self) -> String {
        format!("repository:{}:pull,push", self.name)
    }

    /// The manifest or index that a tag or digest names.
    pub fn manifest(&self, selector: &str) -> Result<Manifest> {
        let object = self.object("manifest", selector);
        let url = self.url(&format!("manifests/{selector}"))?;
        let accept = [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST].join(", ");
        let (headers, scope) = ([(header::ACCEPT, accept)], self.pull_scope());
        let call = self.call(Method::GET, &url, &headers, &scope, &object);
        // The body is a part of what is repeated: a connection may end in the middle of it.
        let (bytes, kind) = self.client.retry().repeat(|| {
            let answer = self.client.get_once(&call, &[200])?;
            let kind = answer.header(header::CONTENT_TYPE).map(media_type);
            Ok((answer.read(MANIFEST_LIMIT, &object)?, kind))
        })?;
        let expected: Option<Digest> = selector.parse().ok();
        Manifest::new(bytes, kind.as_deref(), expected.as_ref(), &object)
    }

    /// The image that a tag or digest names; of an index, the one for a platform.
    pub fn resolve(&self, selector: &str, platform: &Platform) -> Result<Resolved> {
        let mut selector = selector.to_owned();
        let mut index = None;
        for _ in 0..=DEPTH {
            let object = self.object("manifest", &selector);
            let manifest = self.manifest(&selector)?;
            match manifest.parse(&object)? {
                Parsed::Image(image) => {
                    return Ok(Resolved {
                        manifest,
                        image: *image,
                        index,
                    });
                }
                Parsed::Index(entries) => {
                    let entry = platform::choose(&entries, platform, &object)?;
                    selector = entry.digest().to_string();
                    index.get_or_insert(manifest);
                }
            }
        }
        Err(RegistryError::BadManifest {
            object: self.object("manifest", selector),
            reason: format!("it lies in indexes more than {DEPTH} deep"),
        })
    }

    /// Whether a blob is there. A registry that is in doubt is taken at its word: no.
    pub fn has_blob(&self, blob: &Descriptor) -> Result<bool> {
        let object = self.object("blob", blob.digest());
        let url = self.url(&format!("blobs/{}", blob.digest()))?;
        let scope = self.push_scope();
        let call = self.call(Method::HEAD, &url, &[], &scope, &object);
        let answer = self.client.get(&call, &[200, 404])?;
        if answer.status() == 404 {
            return Ok(false);
        }
        let length = answer.header(header::CONTENT_LENGTH);
        match length.and_then(|l| l.parse::<u64>().ok()) {
            Some(length) if length != blob.size() => Err(RegistryError::WrongSize {
                object,
                expected: blob.size(),
                actual: length.to_string(),
            }),
            _ => Ok(true),
        }
    }

    /// Stores a manifest under a tag, or under its digest when `tag` is `None`.
    ///
    /// What it names has to be there.
    pub fn put_manifest(&self, manifest: &Manifest, tag: Option<&str>) -> Result<()> {
        let digest = manifest.digest();
        let selector = tag.unwrap_or_else(|| digest.as_ref());
        let object = self.object("manifest", selector);
        let url = self.url(&format!("manifests/{selector}"))?;
        let headers = [(header::CONTENT_TYPE, manifest.media_type().to_owned())];
        let scope = self.push_scope();
        let call = self.call(Method::PUT, &url, &headers, &scope, &object);
        let accepted = [200, 201, 202, 204];
        let answer = self.client.send(&call, manifest.bytes(), &accepted)?;
        match answer.header(DIGEST_HEADER) {
            Some(stored) if stored != digest.as_ref() => {
                let reason = format!("it stored the manifest as {stored} in place of {digest}");
                Err(answer.protocol_error(&object, reason))
            }
            _ => Ok(()),
        }
    }

    /// The digest of the manifest under a tag, without fetching it; `None` where there is none.
    pub fn manifest_digest(&self, selector: &str) -> Result<Option<Digest>> {
        let object = self.object("manifest", selector);
        let url = self.url(&format!("manifests/{selector}"))?;
        let accept = [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST].join(", ");
        let (headers, scope) = ([(header::ACCEPT, accept)], self.pull_scope());
        let call = self.call(Method::HEAD, &url, &headers, &scope, &object);
        let answer = self.client.get(&call, &[200, 404])?;
        if answer.status() == 404 {
            return Ok(None);
        }
        Ok(answer.header(DIGEST_HEADER).and_then(|d| d.parse().ok()))
    }

    /// All tags.
    pub fn tags(&self) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let object = Object(format!("tags of {}", self.full_name()));
        let scope = self.pull_scope();
        let mut url = self.url("tags/list")?;
        let mut tags = Vec::new();
        for _ in 0..PAGES {
            let call = self.call(Method::GET, &url, &[], &scope, &object);
            let answer = self.client.get(&call, &[200])?;
            let next = next_page(&answer);
            let bad = |e: serde_json::Error| RegistryError::BadManifest {
                object: object.clone(),
                reason: format!("the list of tags cannot be read: {e}"),
            };
            let bytes = answer.read(TAGS_LIMIT, &object)?;
            let page: Page = serde_json::from_slice(&bytes).map_err(bad)?;
            tags.extend(page.tags.unwrap_or_default());
            match next {
                Some(next) => url = next,
                None => break,
            }
        }
        Ok(tags)
    }

    pub(crate) fn call<'c>(
        &'c self,
        method: Method,
        url: &'c str,
        headers: &'c [(header::HeaderName, String)],
        scope: &'c str,
        object: &'c Object,
    ) -> Call<'c> {
        Call {
            method,
            url,
            headers,
            repository: &self.name,
            scope,
            object,
        }
    }
}

/// `Content-Type` without its parameters.
fn media_type(header: &str) -> String {
    let bare = header.split(';').next().unwrap_or(header);
    bare.trim().to_owned()
}

/// Where `Link: <…>; rel="next"` leads.
fn next_page(answer: &Answer) -> Option<String> {
    let link = answer.header(header::LINK)?;
    let (target, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    if !rest.contains("next") {
        return None;
    }
    Some(url::resolve(&answer.uri, target)?.to_string())
}
