//! `reflex-edge completions`, `man` and `probe`.

use reflex_tests::edge::{self, Plan};
use reflex_tests::upstream::Upstream;

use super::*;

/// Each command that the help lists.
async fn commands() -> Vec<String> {
    let help = edge::run(&["--help"]).await;
    let help = String::from_utf8(help.stdout).expect("text");
    let listed = help.split("Commands:\n").nth(1).expect("commands");
    let lines = listed.lines().take_while(|line| !line.is_empty());
    // A long description goes on in lines that are indented more.
    let names = lines.filter_map(|line| line.strip_prefix("  "));
    let names = names.filter(|line| !line.starts_with(' '));
    let names: Vec<String> = names
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect();
    assert!(names.len() > 10, "{names:?}");
    names
}

#[tokio::test]
async fn each_shell_completes_each_command() {
    let commands = commands().await;
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = edge::run(&["completions", shell]).await;
        assert_eq!(output.status.code(), Some(0), "{shell}");
        let script = String::from_utf8(output.stdout).expect("text");
        for command in &commands {
            assert!(script.contains(command.as_str()), "{shell}: {command}");
        }
    }
    let unknown = edge::run(&["completions", "cmd.exe"]).await;
    assert_eq!(unknown.status.code(), Some(2));
}

/// bash itself reads its script.
#[tokio::test]
async fn bash_takes_its_completions() {
    let script = edge::run(&["completions", "bash"]).await.stdout;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("reflex-edge.bash");
    fs::write(&file, script).expect("a script");
    let source = r#"source "$1" && complete -p reflex-edge"#;
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", source, "bash"]).arg(&file);
    let said = succeeds(&mut bash).await;
    assert!(said.contains("reflex-edge"), "{said}");
}

#[tokio::test]
async fn each_command_has_a_page() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = edge::run(&["man", &folder.path().to_string_lossy()]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for command in commands().await {
        if command == "help" {
            continue;
        }
        let page = folder.path().join(format!("reflex-edge-{command}.1"));
        let page = fs::read_to_string(&page).unwrap_or_else(|_| panic!("{command} has none"));
        assert!(page.contains(".TH ") && page.contains(".SH NAME"), "{page}");
    }
    let whole = folder.path().join("reflex-edge.1");
    assert!(whole.exists(), "the page of all");
    let printed = edge::run(&["man"]).await;
    let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
    assert!(printed.contains(".TH reflex-edge 1 "), "{printed}");
}

#[tokio::test]
async fn a_probe_tells_by_its_exit_code() {
    let upstream = Upstream::start().await;
    let mut edge = Plan::new(&upstream.url()).start().await;
    edge.ready().await;
    let admin = edge.admin_url.trim_start_matches("http://").to_owned();
    let probe = |more: &'static [&'static str]| {
        let admin = admin.clone();
        async move {
            let mut arguments = vec!["probe", "--admin", &admin];
            arguments.extend(more);
            edge::run(&arguments).await
        }
    };
    for more in [&[][..], &["--ready"]] {
        let output = probe(more).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    edge.terminate();
    assert_eq!(edge.ended().await, Some(0), "{}", edge.log());
    let output = probe(&["--ready"]).await;
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}
