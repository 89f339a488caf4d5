//! The server's identity: 32 bytes in `server.key` in the data folder; a proxy server's: in `proxy.key`.
//!
//! Players pin the key. It is created once, readable for its owner alone, and complete or not at all: it is written under
//! another name first, and gets its own name in one step that never overwrites a key that is there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rand::TryRng;
use rand::rngs::SysRng;

use super::StartError;
use crate::transport::identity::Identity;

/// Name of a server's file.
pub const SERVER: &str = "server.key";
/// Name of a proxy server's file: beside a server on the same machine it must be somebody else.
pub const PROXY: &str = "proxy.key";

/// Bytes in it: an Ed25519 seed.
const LENGTH: usize = 32;

/// Reads the identity of that file name from `folder` (or the platform's), or creates it there.
pub fn load_or_create(folder: Option<&Path>, file: &str) -> Result<Identity, StartError> {
    let folder = match folder {
        Some(folder) => folder.to_owned(),
        None => default_folder()?,
    };
    fs::create_dir_all(&folder)
        .map_err(|error| StartError(format!("cannot use the data folder {}: {error}", folder.display())))?;
    let path = folder.join(file);
    match read(&path) {
        Ok(identity) => Ok(identity),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create(&folder, &path)
                .map_err(|error| StartError(format!("cannot write the identity {}: {error}", path.display())))?;
            // What is there now counts: another server may have been quicker.
            read(&path).map_err(|error| unreadable(&path, &error))
        }
        Err(error) => Err(unreadable(&path, &error)),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> StartError {
    StartError(format!("cannot read the identity {}: {error}", path.display()))
}

fn read(path: &Path) -> io::Result<Identity> {
    let file = File::open(path)?;
    warn_if_open_to_others(path, &file);
    let mut bytes = Vec::with_capacity(LENGTH + 1);
    file.take(LENGTH as u64 + 1).read_to_end(&mut bytes)?;
    let seed: [u8; LENGTH] = bytes.try_into().map_err(|bytes: Vec<u8>| {
        let length = if bytes.len() > LENGTH {
            "more than 32".to_owned()
        } else {
            bytes.len().to_string()
        };
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it must have 32 bytes and has {length}; restore it, or delete it to get a new identity"),
        )
    })?;
    Ok(Identity::from_seed(seed))
}

fn create(folder: &Path, path: &Path) -> io::Result<()> {
    let mut seed = [0; LENGTH];
    SysRng.try_fill_bytes(&mut seed).map_err(io::Error::other)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!("{name}.{}", std::process::id()));
    let result = write_private(&temporary, &seed).and_then(|()| match fs::hard_link(&temporary, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // A file system without links: the window in which a second server could come between is small.
        Err(_) => fs::rename(&temporary, path),
        Ok(()) => Ok(()),
    });
    let _ = fs::remove_file(&temporary);
    result
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    // Left behind by one that was killed in the middle and had the same process id.
    let _ = fs::remove_file(path);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn warn_if_open_to_others(path: &Path, file: &File) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if file
            .metadata()
            .is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
        {
            tracing::warn!(
                "{} can be read by others than its owner: run chmod 600 on it",
                path.display()
            );
        }
    }
    #[cfg(not(unix))]
    let _ = (path, file);
}

/// `$XDG_DATA_HOME/lanline` or `~/.local/share/lanline`; on macOS `~/Library/Application Support/lanline`; on Windows
/// `%LOCALAPPDATA%\lanline`. A service without a home folder: `/var/lib/lanline`.
fn default_folder() -> Result<PathBuf, StartError> {
    let variable = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = if cfg!(windows) {
        variable("LOCALAPPDATA").or_else(|| variable("APPDATA"))
    } else if cfg!(target_os = "macos") {
        variable("HOME").map(|home| home.join("Library/Application Support"))
    } else {
        variable("XDG_DATA_HOME")
            .or_else(|| variable("HOME").map(|home| home.join(".local/share")))
            .or_else(|| Some(PathBuf::from("/var/lib")))
    };
    base.map(|base| base.join("lanline"))
        .ok_or_else(|| StartError("there is no home folder to keep the identity in: name one with --data".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("lanline-identity-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn an_identity_is_created_once_and_kept_private() {
        let folder = Folder::new("once");
        let first = load_or_create(Some(&folder.0), SERVER).unwrap();
        assert_eq!(
            load_or_create(Some(&folder.0), SERVER).unwrap().public(),
            first.public()
        );
        let names: Vec<_> = fs::read_dir(&folder.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, [SERVER]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(folder.0.join(SERVER)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_key_that_is_there_is_never_overwritten() {
        let folder = Folder::new("keep");
        let first = load_or_create(Some(&folder.0), SERVER).unwrap();
        create(&folder.0, &folder.0.join(SERVER)).unwrap();
        assert_eq!(
            load_or_create(Some(&folder.0), SERVER).unwrap().public(),
            first.public()
        );
    }

    #[test]
    fn a_file_of_another_length_is_an_error_that_says_so() {
        let folder = Folder::new("length");
        fs::create_dir_all(&folder.0).unwrap();
        for length in [0, 31, 33, 5_000] {
            fs::write(folder.0.join(SERVER), vec![1; length]).unwrap();
            let error = load_or_create(Some(&folder.0), SERVER).unwrap_err();
            assert!(
                error.0.contains("32 bytes") && error.0.contains(SERVER) && !error.0.contains('\n'),
                "{error}"
            );
        }
    }
}
