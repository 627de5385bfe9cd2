//! The cache with a disk.

use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};

use super::*;

const ROOM: u64 = 1 << 20;

async fn on_disk(folder: &FilePath, memory: usize) -> Cache {
    open(folder, memory, ROOM).await.unwrap()
}

async fn open(folder: &FilePath, memory: usize, bytes: u64) -> Result<Cache, Failure> {
    let disk = Some(DiskSettings { folder: folder.to_owned(), bytes });
    Cache::open(CacheSettings { memory, disk }).await
}

/// All files with pieces.
fn files(folder: &FilePath) -> Vec<std::path::PathBuf> {
    let all = |folder: &FilePath| -> Vec<_> {
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let shards = all(&folder.join("capstan-cache-1")).into_iter().filter(|path| path.is_dir());
    shards.flat_map(|shard| all(&shard)).collect()
}

#[tokio::test]
async fn piece_read_twice_is_cached_after_a_restart() {
    let (fixture, folder) = (Fixture::new(40).await, tempfile::tempdir().unwrap());
    let cache = on_disk(folder.path(), 100_000).await;
    for _ in 0..2 {
        fixture.read(&cache, 0..10).await;
    }
    fixture.read(&cache, 20..30).await;
    cache.flush().await;
    assert_eq!(files(folder.path()).len(), 10);
    drop(cache);
    let cache = on_disk(folder.path(), 100_000).await;
    assert_eq!(cache.counts().disk_bytes, 10 * 4_096);
    assert_eq!(fixture.read(&cache, 0..10).await, 0);
    assert_eq!(fixture.read(&cache, 20..30).await, 1);
    let counts = cache.counts();
    assert_eq!((counts.from_disk, counts.misses), (10, 10));
    // Now they are in memory, too.
    fixture.read(&cache, 0..10).await;
    assert_eq!(cache.counts().from_memory, 10);
}

#[tokio::test]
async fn disk_cache_alone_serves_third_read_and_second_read_of_an_index() {
    let (fixture, folder) = (Fixture::new(40).await, tempfile::tempdir().unwrap());
    let cache = on_disk(folder.path(), 0).await;
    for expected in [1, 1, 0, 0] {
        assert_eq!(fixture.read(&cache, [0, 1]).await, expected);
        cache.flush().await;
    }
    let index = [vec![fixture.piece(7)]];
    for expected in [1, 0] {
        assert_eq!(fixture.read_as(&cache, Keep::OnDisk, &index).await, expected);
        cache.flush().await;
    }
    assert_eq!(cache.counts().memory_bytes, 0);
}

#[tokio::test]
async fn damaged_cache_file_is_a_counted_miss() {
    let (fixture, folder) = (Fixture::new(4).await, tempfile::tempdir().unwrap());
    let cache = on_disk(folder.path(), 0).await;
    let spoil: [fn(&mut Vec<u8>); 5] = [
        |bytes| bytes[500] ^= 1,
        |bytes| bytes.truncate(700),
        |bytes| bytes.clear(),
        |bytes| bytes.push(0),
        // Other bytes with a trailer that is right: what the index layer knows tells.
        |bytes| {
            bytes[500] ^= 1;
            let crc = crc32c::crc32c(&bytes[..1_000]).to_le_bytes();
            bytes[1_000..].copy_from_slice(&crc);
        },
    ];
    for _ in 0..2 {
        fixture.read(&cache, [0]).await;
    }
    for (number, spoil) in spoil.iter().enumerate() {
        cache.flush().await;
        assert_eq!(fixture.read(&cache, [0]).await, 0);
        let [file] = &files(folder.path())[..] else { panic!("one file") };
        let mut bytes = std::fs::read(file).unwrap();
        spoil(&mut bytes);
        std::fs::write(file, bytes).unwrap();
        assert_eq!(fixture.read(&cache, [0]).await, 1);
        assert_eq!(cache.counts().corrupt, number as u64 + 1);
    }
    assert_eq!(cache.counts().failed, 0);
}

#[tokio::test]
async fn disk_cache_stays_within_its_limit_and_survives_a_scan() {
    let (fixture, folder) = (Fixture::new(600).await, tempfile::tempdir().unwrap());
    let cache = open(folder.path(), 0, 20 * 4_096).await.unwrap();
    for _ in 0..2 {
        for number in 0..10 {
            fixture.read(&cache, [number]).await;
        }
    }
    cache.flush().await;
    for number in 100..600 {
        fixture.read(&cache, [number]).await;
    }
    cache.flush().await;
    for number in 0..10 {
        assert_eq!(fixture.read(&cache, [number]).await, 0);
    }
    for _ in 0..2 {
        for number in 100..130 {
            fixture.read(&cache, [number]).await;
            fixture.read(&cache, [number]).await;
            cache.flush().await;
        }
    }
    assert_eq!(files(folder.path()).len(), 20);
    assert_eq!(cache.counts().disk_bytes, 20 * 4_096);
    drop(cache);
    // With less room some go at once.
    let cache = open(folder.path(), 0, 5 * 4_096).await.unwrap();
    assert_eq!((files(folder.path()).len(), cache.counts().disk_bytes), (5, 5 * 4_096));
}

#[tokio::test]
async fn unwritable_disk_costs_only_requests() {
    let (fixture, folder) = (Fixture::new(10).await, tempfile::tempdir().unwrap());
    let cache = on_disk(folder.path(), 0).await;
    // As it is when the disk is full; root may write where rights say no.
    let ours = folder.path().join("capstan-cache-1");
    std::fs::remove_dir_all(&ours).unwrap();
    std::fs::write(&ours, "no folder").unwrap();
    for _ in 0..3 {
        assert_eq!(fixture.read(&cache, [0, 1]).await, 1);
        cache.flush().await;
    }
    let counts = cache.counts();
    // The second one of the two may have been on its way when the first one failed.
    assert!((1..=2).contains(&counts.failed), "{counts:?}");
    assert_eq!((counts.disk_bytes, counts.corrupt), (0, 0));
}

#[tokio::test]
async fn cache_folder_is_private_and_exclusive() {
    let (fixture, folder) = (Fixture::new(4).await, tempfile::tempdir().unwrap());
    let named = folder.path().join("a/b");
    let cache = on_disk(&named, 0).await;
    for _ in 0..2 {
        fixture.read(&cache, [0]).await;
    }
    cache.flush().await;
    for path in [&named, &named.join("capstan-cache-1")] {
        assert_eq!(std::fs::metadata(path).unwrap().mode() & 0o777, 0o700);
    }
    let [file] = &files(&named)[..] else { panic!("one file") };
    assert_eq!(std::fs::metadata(file).unwrap().mode() & 0o777, 0o600);
    let other = open(&named, 0, ROOM).await.unwrap_err();
    assert_eq!(other.kind(), FailureKind::AlreadyThere);
    assert!(other.to_string().contains("another capstan"), "{other}");
    drop(cache);
    // Half a file that a process left behind goes.
    let half = file.with_extension("new");
    std::fs::write(&half, "half").unwrap();
    drop(on_disk(&named, 0).await);
    assert!(!half.exists() && file.exists());

    let open_to_all = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(named.join("capstan-cache-1"), open_to_all).unwrap();
    let failure = open(&named, 0, ROOM).await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Permission);
    assert!(failure.to_string().contains("chmod 700"), "{failure}");
}

#[tokio::test]
async fn unusable_cache_folder_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "no folder").unwrap();
    let failure = open(&file.join("cache"), 0, ROOM).await.unwrap_err();
    assert!(failure.to_string().contains("file/cache"), "{failure}");
    assert!(open(FilePath::new("/proc/cache"), 0, ROOM).await.is_err());
    std::fs::DirBuilder::new().mode(0o700).create(folder.path().join("good")).unwrap();
    assert!(open(&folder.path().join("good"), 0, ROOM).await.is_ok());
}

#[tokio::test]
async fn cache_follows_no_symlinks() {
    let scratch = tempfile::tempdir().unwrap();
    let outside = scratch.path().join("outside");
    std::fs::DirBuilder::new().mode(0o700).create(&outside).unwrap();
    // What the cache would remove in a folder of its own.
    let letter = outside.join("letter.new");
    std::fs::write(&letter, "dear").unwrap();
    let untouched = || {
        let names: Vec<_> =
            std::fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().path()).collect();
        names == [letter.clone()] && std::fs::read_to_string(&letter).unwrap() == "dear"
    };
    for (number, link) in
        ["capstan-cache-1", "capstan-cache-1/07", "capstan-cache-1/lock"].into_iter().enumerate()
    {
        let named = scratch.path().join(format!("cache-{number}"));
        let link = named.join(link);
        let mut folder = std::fs::DirBuilder::new();
        folder.recursive(true).mode(0o700).create(link.parent().unwrap()).unwrap();
        let target = if link.ends_with("lock") { &letter } else { &outside };
        std::os::unix::fs::symlink(target, &link).unwrap();
        let failure = open(&named, 0, ROOM).await.unwrap_err();
        assert!(failure.to_string().contains("the cache cannot use its folder"), "{failure}");
        assert!(untouched(), "{}", link.display());
    }

    // A file that is staged goes into no link, and one that is read is none.
    let (fixture, named) = (Fixture::new(4).await, scratch.path().join("cache"));
    let cache = on_disk(&named, 0).await;
    for _ in 0..2 {
        fixture.read(&cache, [0]).await;
    }
    cache.flush().await;
    let [file] = &files(&named)[..] else { panic!("one file") };
    std::fs::remove_file(file).unwrap();
    std::os::unix::fs::symlink(&letter, file).unwrap();
    std::os::unix::fs::symlink(&letter, file.with_extension("new")).unwrap();
    for _ in 0..3 {
        fixture.read(&cache, [0]).await;
        cache.flush().await;
    }
    assert!(untouched());
}
