use std::thread;

use super::*;

/// A QEMU that answers as the script says: for each command that must come, the lines that go back.
fn qemu(script: &'static [(&'static str, &'static str)]) -> (io::Result<Qmp>, thread::JoinHandle<()>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let thread = thread::spawn(move || {
        let mut lines = BufReader::new(theirs);
        lines.get_mut().write_all(b"{\"QMP\": {}}\r\n").unwrap();
        for (command, answer) in [("qmp_capabilities", "{\"return\": {}, \"id\": ID}")].iter().chain(script) {
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            let request: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(request["execute"], *command);
            let answer = answer.replace("ID", &request["id"].to_string()) + "\r\n";
            lines.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    });
    (Qmp::new(ours), thread)
}

#[test]
fn answers_find_their_command_and_errors_keep_their_reason() {
    let (qmp, thread) = qemu(&[
        ("one", "{\"event\": \"RESUME\"}\n{\"return\": 0, \"id\": 999}\n{\"return\": {\"x\": 1}, \"id\": ID}"),
        ("two", "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such thing\"}, \"id\": ID}"),
    ]);
    let mut qmp = qmp.unwrap();
    assert_eq!(qmp.execute("one", json!({})).unwrap(), json!({ "x": 1 }));
    assert_eq!(qmp.execute("two", json!({})).unwrap_err().to_string(), "no such thing");
    thread.join().unwrap();
    assert!(qmp.execute("three", json!({})).is_err());
}

#[test]
fn a_device_is_gone_when_its_event_has_come_before_or_after_the_answer() {
    let (qmp, thread) = qemu(&[
        ("device_del", "{\"event\": \"DEVICE_DELETED\", \"data\": {\"device\": \"a\"}}\n{\"return\": {}, \"id\": ID}"),
        (
            "device_del",
            "{\"return\": {}, \"id\": ID}\n{\"event\": \"DEVICE_DELETED\", \"data\": {\"path\": \"/b\"}}\n\
             {\"event\": \"DEVICE_DELETED\", \"data\": {\"device\": \"b\"}}",
        ),
        ("human-monitor-command", "{\"return\": \"\", \"id\": ID}"),
        ("human-monitor-command", "{\"return\": \"could not\\r\\n\", \"id\": ID}"),
    ]);
    let mut qmp = qmp.unwrap();
    qmp.delete_device("a").unwrap();
    qmp.delete_device("b").unwrap();
    qmp.human("fine").unwrap();
    assert_eq!(qmp.human("not").unwrap_err().to_string(), "could not");
    thread.join().unwrap();
}
