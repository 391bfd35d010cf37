//! Containers: a writable layer over an image, that goes with the container.
//!
//! `containers/NAME/` holds `container.json`, the upper `upper`, its workdir `work` and `merged`,
//! where it is mounted unless somebody says otherwise. It is made in staging and renamed into
//! place; it refers to the layers by itself, so that they stay while it does.
use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use plyfs_sys::attr::{self, SetTime};
use plyfs_sys::{At, Errno, open};
use serde::{Deserialize, Serialize};

use super::{Image, Store, files, names};
use crate::digest::Digest;
use crate::error::{ImageError, Result};

/// A container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Container {
    /// What it is called.
    pub name: String,
    /// The image it was made from.
    pub image: Digest,
    /// As the image was asked for.
    pub image_name: String,
    /// The image's layers, base first.
    pub diff_ids: Vec<Digest>,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// Its directory.
    #[serde(skip)]
    pub dir: PathBuf,
}

impl Container {
    /// The writable layer.
    #[must_use]
    pub fn upper(&self) -> PathBuf {
        self.dir.join("upper")
    }

    /// Where changes are staged.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.dir.join("work")
    }

    /// Where it is mounted unless somebody says otherwise.
    #[must_use]
    pub fn merged(&self) -> PathBuf {
        self.dir.join("merged")
    }
}

impl Store {
    /// Makes a container of an image.
    ///
    /// # Errors
    /// When the name is taken, or a layer is missing.
    pub fn create_container(
        &self,
        name: &str,
        image: &Image,
        image_name: &str,
    ) -> Result<Container> {
        names::check_container_name(name)?;
        let lowers = self.lower_dirs(&image.diff_ids)?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let container = Container {
            name: name.to_owned(),
            image: image.id.clone(),
            image_name: image_name.to_owned(),
            diff_ids: image.diff_ids.clone(),
            created: now.map_or(0, |t| t.as_secs()),
            dir: self.root.join("containers").join(name),
        };
        let staging = self.staging()?;
        let dir = staging.path().join("container");
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o755);
        for sub in ["", "upper", "work", "merged"] {
            let path = dir.join(sub);
            builder
                .create(&path)
                .map_err(|e| ImageError::file("making", &path, e))?;
        }
        if let Some(top) = lowers.first() {
            like_root(top, &dir.join("upper"))?;
        }
        self.write_json(&dir.join("container.json"), &container)?;
        if !files::publish_dir(&dir, &container.dir)? {
            return Err(ImageError::Refused(format!(
                "there is a container {name:?} already: remove it or choose another name"
            )));
        }
        files::clear(staging)?;
        Ok(container)
    }

    /// A container by its name.
    ///
    /// # Errors
    /// When there is none.
    pub fn container(&self, name: &str) -> Result<Container> {
        names::check_container_name(name)?;
        let dir = self.root.join("containers").join(name);
        let found = files::read_json::<Container>(&dir.join("container.json"))?;
        let found = found.ok_or_else(|| ImageError::NotFound {
            what: "container",
            name: name.to_owned(),
            hint: ": 'plyfs container ls' lists what is".to_owned(),
        })?;
        Ok(Container { dir, ..found })
    }

    /// All containers by name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn containers(&self) -> Result<Vec<Container>> {
        let mut all = Vec::new();
        for dir in files::names(&self.root.join("containers"))? {
            if let Some(found) = files::read_json::<Container>(&dir.join("container.json"))? {
                all.push(Container { dir, ..found });
            }
        }
        Ok(all)
    }

    /// Removes a container with all that was written in it.
    ///
    /// # Errors
    /// When it is mounted.
    pub fn remove_container(&self, container: &Container) -> Result<()> {
        let _upper = lock_upper(container)?;
        self.discard(&container.dir)
    }
}

/// Takes the upper as a mount does, so that no mount can begin; fails where one has it.
fn lock_upper(container: &Container) -> Result<File> {
    let path = container.upper();
    let file = File::open(&path).map_err(|e| ImageError::file("opening", &path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(ImageError::Refused(format!(
            "container {:?} is mounted: 'plyfs container umount {0}' first",
            container.name
        ))),
        Err(std::fs::TryLockError::Error(e)) => Err(ImageError::file("locking", &path, e)),
    }
}

/// The root of the upper is the root that everybody sees.
fn like_root(from: &Path, to: &Path) -> Result<()> {
    let (from, to) = (open::open_dir_path(from)?, open::open_dir_path(to)?);
    let stat = plyfs_sys::stat::stat(At::object(&from))?;
    let at = At::object(&to);
    match attr::chown(at, Some(stat.uid), Some(stat.gid)) {
        Err(e) if matches!(e.errno(), Errno::EPERM | Errno::EINVAL) => {}
        other => other?,
    }
    attr::chmod(at, stat.perm())?;
    attr::utimens(at, SetTime::To(stat.atime), SetTime::To(stat.mtime))?;
    Ok(())
}
