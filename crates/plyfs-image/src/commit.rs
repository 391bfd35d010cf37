//! Committing: what a container changed becomes one more layer of a new image.
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::PathBuf;

use oci_spec::image::{Descriptor, MediaType};
use plyfs_sys::stat::Time;
use serde_json::{Value, json};

use crate::compression::Compression;
use crate::digest::{Digest, HashingWriter};
use crate::error::{ImageError, Result};
use crate::layer_tar::{self, Options};
use crate::store::containers::Container;
use crate::store::{Image, LayerSource, Store};
use crate::time;

/// Level by which zstd packs a layer: its own default.
const ZSTD_LEVEL: i32 = 3;

/// How a container is committed.
#[derive(Debug, Clone)]
pub struct CommitOptions {
    /// How the layer is packed.
    pub compression: Compression,
    /// Who did it.
    pub author: Option<String>,
    /// What for.
    pub comment: Option<String>,
}

impl Default for CommitOptions {
    fn default() -> Self {
        Self {
            compression: Compression::Gzip,
            author: None,
            comment: None,
        }
    }
}

/// Packs what is written to it.
enum Packer<W: Write> {
    Plain(W),
    Gzip(flate2::write::GzEncoder<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Packer<W> {
    fn new(out: W, how: Compression) -> io::Result<Self> {
        Ok(match how {
            Compression::Plain => Self::Plain(out),
            Compression::Gzip => {
                // No name and no time in the header: the same layer has the same digest.
                let level = flate2::Compression::default();
                Self::Gzip(flate2::GzBuilder::new().mtime(0).write(out, level))
            }
            Compression::Zstd => Self::Zstd(zstd::stream::write::Encoder::new(out, ZSTD_LEVEL)?),
        })
    }

    fn finish(self) -> io::Result<W> {
        match self {
            Self::Plain(w) => Ok(w),
            Self::Gzip(w) => w.finish(),
            Self::Zstd(w) => w.finish(),
        }
    }
}

impl<W: Write> Write for Packer<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(w) => w.write(buf),
            Self::Gzip(w) => w.write(buf),
            Self::Zstd(w) => w.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(w) => w.flush(),
            Self::Gzip(w) => w.flush(),
            Self::Zstd(w) => w.flush(),
        }
    }
}

impl Store {
    /// Makes an image of a container: its image's layers, and one with what it changed.
    ///
    /// # Errors
    /// When the upper changes meanwhile or cannot be read, or the store cannot be written.
    pub fn commit(&self, container: &Container, options: &CommitOptions) -> Result<Image> {
        let base = self
            .image(&container.image)?
            .ok_or_else(|| ImageError::NotFound {
                what: "image",
                name: container.image.to_string(),
                hint: format!("; container {:?} was made from it", container.name),
            })?;
        let created = match time::source_date_epoch()? {
            Some(epoch) => epoch,
            None => now(),
        };
        let mut layers: Vec<Descriptor> = base.layers.iter().map(as_oci).collect();
        let mut config = base.config.clone();
        let layer = self.changes_of(container, options)?;
        let step = history(options, created, layer.is_none());
        if let Some((descriptor, diff_id)) = layer {
            layers.push(descriptor);
            push(&mut config["rootfs"]["diff_ids"], json!(diff_id));
        }
        push(&mut config["history"], step);
        config["created"] = json!(time::rfc3339(created));
        if let Some(author) = &options.author {
            config["author"] = json!(author);
        }
        let config = serde_json::to_vec(&config).map_err(|e| ImageError::malformed("config", e))?;
        self.assemble_image(&config, &layers)
    }

    /// The layer of what a container changed; None where it changed nothing.
    fn changes_of(
        &self,
        container: &Container,
        options: &CommitOptions,
    ) -> Result<Option<(Descriptor, Digest)>> {
        let scratch = self.root().join("staging");
        let failed = |e| ImageError::file("writing to", &scratch, e);
        let file = tempfile::NamedTempFile::new_in(&scratch).map_err(failed)?;
        let blob = HashingWriter::new(BufWriter::with_capacity(1 << 20, file.as_file()));
        let tar = HashingWriter::new(Packer::new(blob, options.compression).map_err(failed)?);
        let lowers: Vec<PathBuf> = self.lower_dirs(&container.diff_ids)?;
        let how = Options {
            namespace: self.namespace(),
            latest: time::source_date_epoch()?.map(|sec| Time { sec, nsec: 0 }),
        };
        let (tar, written) = layer_tar::write_changes(&container.upper(), &lowers, tar, how)?;
        if written.entries == 0 {
            return Ok(None);
        }
        let (packer, diff_id, _) = tar.finish()?;
        let (out, digest, size) = packer.finish().map_err(failed)?.finish()?;
        out.into_inner().map_err(|e| failed(e.into_error()))?;
        let again = File::open(file.path()).map_err(failed)?;
        let source = LayerSource {
            blob: Some((digest, size)),
            diff_id: Some(diff_id),
            ..LayerSource::anonymous(BufReader::new(again))
        };
        self.import_layer(source).map(Some)
    }
}

fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.ok()
        .and_then(|t| i64::try_from(t.as_secs()).ok())
        .unwrap_or(0)
}

fn history(options: &CommitOptions, created: i64, empty: bool) -> Value {
    let mut step = json!({
        "created": time::rfc3339(created),
        "created_by": "plyfs container commit",
    });
    if empty {
        step["empty_layer"] = json!(true);
    }
    for (key, value) in [("author", &options.author), ("comment", &options.comment)] {
        if let Some(value) = value {
            step[key] = json!(value);
        }
    }
    step
}

fn push(list: &mut Value, value: Value) {
    match list {
        Value::Array(list) => list.push(value),
        other => *other = json!([value]),
    }
}

/// A layer of a Docker manifest as one of an OCI manifest: they differ in the name of the type.
fn as_oci(layer: &Descriptor) -> Descriptor {
    let media_type = match layer.media_type().as_ref() {
        "application/vnd.docker.image.rootfs.diff.tar" => MediaType::ImageLayer,
        t if t.starts_with("application/vnd.docker.image.rootfs") && t.ends_with("gzip") => {
            MediaType::ImageLayerGzip
        }
        t if t.starts_with("application/vnd.docker.image.rootfs") && t.ends_with("zstd") => {
            MediaType::ImageLayerZstd
        }
        _ => return layer.clone(),
    };
    let mut layer = layer.clone();
    layer.set_media_type(media_type);
    layer
}
