//! A disk in trouble: answers are in memory, a metric says so, and the folder is used as soon as the disk
//! works.

use super::{check_hit, check_miss, ended, in_folder, is_in_memory, stored};
use reflex_tests::client::Ask;
use reflex_tests::mount::Disk;
use reflex_tests::upstream::Upstream;
use std::fs;

/// An Envoy starts with a disk in trouble, which `repair` ends.
async fn check(disk: &Disk, repair: impl FnOnce()) {
    let upstream = Upstream::start().await;
    let data = disk.data_dir();
    let envoy = in_folder(&upstream, &data).start().await;
    envoy.until("answers are in memory", is_in_memory).await;
    let before = || Ask::chat("before the repair");
    let first = envoy.client.fetch(before()).await;
    check_miss(&first);
    check_hit(&envoy.client.fetch(before()).await, &first);
    assert!(envoy.log().contains("answers are in memory"));

    repair();
    envoy
        .until("the folder is in use", |metrics| !is_in_memory(metrics))
        .await;
    check_hit(&envoy.client.fetch(before()).await, &first);
    let after = || Ask::chat("after the repair");
    let second = envoy.client.fetch(after()).await;
    check_miss(&second);
    stored(&envoy, 2).await;
    ended(envoy).await;

    let envoy = in_folder(&upstream, &data).start().await;
    envoy
        .until("the folder is in use", |metrics| !is_in_memory(metrics))
        .await;
    check_hit(&envoy.client.fetch(after()).await, &second);
    ended(envoy).await;
}

#[tokio::test]
async fn a_disk_that_is_read_only_at_first_is_used_as_soon_as_it_is_not() {
    let Some(disk) = Disk::mount("ro,size=64m") else {
        return;
    };
    check(&disk, || disk.remount("rw")).await;
}

#[tokio::test]
async fn a_full_disk_is_used_as_soon_as_it_has_room() {
    let Some(disk) = Disk::mount("size=16m") else {
        return;
    };
    let filler = disk.path().join("filler");
    fs::write(&filler, vec![1; 17 << 20]).expect_err("a full disk");
    check(&disk, || {
        fs::remove_file(&filler).expect("a file that can be removed");
    })
    .await;
}

/// Workers wait for no write. What the disk does not take is in memory, and Envoy ends once it can.
#[tokio::test]
async fn a_disk_that_hangs_holds_up_no_request() {
    const LONG: usize = 3 << 20;
    const ANSWERS_MAX: usize = 100;
    let Some(mut disk) = Disk::freezable(256 << 20) else {
        return;
    };
    let upstream = Upstream::start().await;
    let data = disk.data_dir();
    let plan = || in_folder(&upstream, &data).workers(2);
    let envoy = plan().start().await;
    envoy
        .until("the folder is in use", |metrics| !is_in_memory(metrics))
        .await;
    let kept = envoy.client.fetch(Ask::chat("kept")).await;
    stored(&envoy, 1).await;

    disk.freeze();
    let long = |number| Ask::chat(&format!("long {number}")).mock(&format!("large={LONG}"));
    let mut asked = 0;
    while asked < ANSWERS_MAX && !is_in_memory(&envoy.metrics().await) {
        check_miss(&envoy.client.fetch(long(asked)).await);
        asked += 1;
    }
    assert!(
        is_in_memory(&envoy.metrics().await),
        "after {asked} answers"
    );
    check_hit(&envoy.client.fetch(Ask::chat("kept")).await, &kept);
    check_miss(&envoy.client.fetch(Ask::chat("not stored")).await);

    disk.thaw();
    envoy
        .until("the disk is used again", |metrics| !is_in_memory(metrics))
        .await;
    let after = envoy.client.fetch(Ask::chat("after")).await;
    check_miss(&after);
    check_hit(&envoy.client.fetch(Ask::chat("after")).await, &after);
    ended(envoy).await;
    let envoy = plan().start().await;
    envoy
        .until("the folder is in use", |metrics| !is_in_memory(metrics))
        .await;
    check_hit(&envoy.client.fetch(Ask::chat("kept")).await, &kept);
    check_hit(&envoy.client.fetch(Ask::chat("after")).await, &after);
    ended(envoy).await;
}
