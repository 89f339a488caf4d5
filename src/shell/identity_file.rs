//! Who a node is, kept in a file: one line of 64 hexadecimal digits, the Ed25519 seed, readable by its owner only.
//!
//! The file stays open and locked while a node uses it. A second node, of this process or another, gets a fresh identity
//! of its own and is told so: two nodes with one identity would push each other off the server in turn.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use ring::rand::{SecureRandom, SystemRandom};

use super::failure::Failure;
use crate::codes::Code;
use crate::transport::identity::{Identity, PublicKey};

/// Larger files are no identities: 64 digits and a line break.
const MAX_FILE: u64 = 256;

/// An identity, and what keeps others from using its file.
pub struct Loaded {
    /// Who the node is.
    pub identity: Identity,
    /// The locked file; the lock ends when it is dropped.
    pub lock: Option<File>,
    /// What the game shall be told.
    pub notice: Option<String>,
}

/// 32 bytes from the system.
///
/// # Errors
/// OUT_OF_RESOURCES if the system gives none.
pub fn random_seed() -> Result<[u8; 32], Failure> {
    let mut seed = [0; 32];
    SystemRandom::new()
        .fill(&mut seed)
        .map_err(|_| Failure::new(Code::OutOfResources, "the system gives no random numbers"))?;
    Ok(seed)
}

/// Reads the identity of `path`, or makes one and writes it there. An empty path: a fresh one in memory.
///
/// # Errors
/// IO if the file cannot be made, read or written, or holds something else.
pub fn load(path: &str) -> Result<Loaded, Failure> {
    if path.is_empty() {
        return Ok(Loaded {
            identity: Identity::from_seed(random_seed()?),
            lock: None,
            notice: None,
        });
    }
    let what = || format!("identity file \"{path}\"");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options
        .open(Path::new(path))
        .map_err(|error| Failure::io(what(), &error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let identity = Identity::from_seed(random_seed()?);
            let notice = format!(
                "{} is in use by another node on this machine: this node has a fresh identity, {}, until it ends",
                what(),
                identity.guid()
            );
            return Ok(Loaded {
                identity,
                lock: None,
                notice: Some(notice),
            });
        }
        Err(TryLockError::Error(error)) => return Err(Failure::io(what(), &error)),
    }
    let mut text = String::new();
    (&mut file)
        .take(MAX_FILE)
        .read_to_string(&mut text)
        .map_err(|error| Failure::io(what(), &error))?;
    let seed = if text.is_empty() {
        write_new(&mut file).map_err(|error| Failure::io(what(), &error))??
    } else {
        // The same 64 digits as a key's.
        PublicKey::from_hex(text.trim()).map(|digits| digits.0).ok_or_else(|| {
            Failure::new(
                Code::Io,
                format!(
                    "{} holds no identity (64 hexadecimal digits); delete it to get a fresh one",
                    what()
                ),
            )
        })?
    };
    Ok(Loaded {
        identity: Identity::from_seed(seed),
        lock: Some(file),
        notice: None,
    })
}

fn write_new(file: &mut File) -> std::io::Result<Result<[u8; 32], Failure>> {
    let seed = match random_seed() {
        Ok(seed) => seed,
        Err(failure) => return Ok(Err(failure)),
    };
    file.rewind()?;
    file.write_all(format!("{}\n", PublicKey(seed).to_hex()).as_bytes())?;
    file.sync_all()?;
    Ok(Ok(seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> String {
        let folder = std::env::temp_dir().join(format!("lanline-identity-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&folder);
        folder.to_str().unwrap().to_owned()
    }

    #[test]
    fn an_identity_is_kept_and_only_its_owner_reads_it() {
        let path = path("kept");
        let first = load(&path).unwrap();
        let guid = first.identity.guid();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        drop(first);
        assert_eq!(load(&path).unwrap().identity.guid(), guid);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_file_in_use_leaves_the_second_node_with_an_identity_of_its_own_and_says_so() {
        let path = path("used");
        let first = load(&path).unwrap();
        let second = load(&path).unwrap();
        assert_ne!(first.identity.guid(), second.identity.guid());
        assert!(second.notice.unwrap().contains("in use"));
        drop(first.lock);
        let third = load(&path).unwrap();
        assert_eq!((third.identity.guid(), third.notice), (first.identity.guid(), None));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn other_content_is_an_error_and_stays() {
        let path = path("other");
        std::fs::write(&path, "my diary").unwrap();
        let failure = load(&path).err().unwrap();
        assert_eq!(failure.code, Code::Io);
        assert!(failure.text.contains("holds no identity"), "{}", failure.text);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "my diary");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(load("/no/such/folder/file").err().unwrap().code, Code::Io);
    }
}
