//! Security groups of a whole region: commands, store and processes are the real ones. What the filter does with frames is tested
//! where the network is; a guest with a network is in `tests/life.rs`.

#[path = "common/home.rs"]
mod home;

use home::{Home, home};
use serde_json::Value;

impl Home {
    fn group(&self, key: &str) -> Value {
        serde_json::from_str(&self.ok(&["security-group", "describe", key, "-o", "json"])).unwrap()
    }

    fn groups_of(&self, instance: &str) -> Vec<String> {
        let described = self.describe(instance);
        let groups = described["SecurityGroups"].as_array().unwrap();
        groups.iter().map(|group| group["GroupName"].as_str().unwrap().to_owned()).collect()
    }

    /// Whether every process knows the present rules, as the store has it.
    fn all_told(&self) -> bool {
        let store = self.directory.path().join("home/state/region.sqlite3");
        let store = rusqlite::Connection::open(store).unwrap();
        store.query_row("SELECT count(*) FROM untold_groups", [], |row| row.get::<_, u32>(0)).unwrap() == 0
    }
}

#[test]
fn groups_filter_instances_that_run() {
    let Some(home) = home("groups_filter_instances") else { return };
    let id = home.ok(&["security-group", "create", "web", "--description", "for the web"]);
    assert!(id.starts_with("sg-") && id.len() == 20, "{id}");
    home.fails(&["security-group", "create", "web"], 254, "InvalidGroup.Duplicate");
    home.fails(&["run", "tiny", "--security-group", "nobody", "-d"], 254, "InvalidGroup.NotFound");

    // As at EC2 it lets nothing in: the launch says so, and so does ssh.
    let payload = home.payload.to_str().unwrap();
    let run = ["run", "tiny", "-t", "t2.nano", "-d", "--name", "one", "--kernel", payload, "--security-group", "web"];
    let launched = home.run(&run);
    let allow = format!("amiable security-group authorize {id} --protocol tcp --port 22 --cidr 127.0.0.1/32");
    assert!(String::from_utf8_lossy(&launched.stderr).contains(&allow));
    assert_eq!(home.groups_of("one"), ["web"]);
    home.fails(&["ssh", "one"], 254, &allow);
    home.fails(&["cp", "one:/etc/hostname", "."], 254, &allow);
    home.fails(&["security-group", "rm", "web"], 254, "DependencyViolation");

    // What the message says mends it, while the instance runs.
    let words: Vec<&str> = allow.split(' ').skip(1).collect();
    assert!(home.ok(&words).starts_with("sgr-"));
    assert!(home.all_told());
    home.fails(&words, 254, "InvalidPermission.Duplicate");
    home.fails(&["ssh", "one"], 255, "host keys");
    home.ok(&["security-group", "revoke", "web", "--protocol", "tcp", "--port", "22", "--cidr", "127.0.0.1/32"]);
    home.fails(&["ssh", "one"], 254, &allow);
    let revoke = ["security-group", "revoke", "web", "--protocol", "tcp", "--port", "22", "--cidr", "127.0.0.1/32"];
    home.fails(&revoke, 254, "InvalidPermission.NotFound");

    // Groups of an instance change while it runs, and survive a stop.
    home.ok(&["modify", "one", "--security-group", "web", "--security-group", "default"]);
    assert!(home.all_told());
    assert_eq!(home.groups_of("one"), ["web", "default"]);
    home.fails(&["ssh", "one"], 255, "host keys");
    home.ok(&["stop", "--force", "one"]);
    home.ok(&["modify", "one", "--security-group", "default"]);
    home.ok(&["start", "one"]);
    assert_eq!(home.groups_of("one"), ["default"]);
    home.ok(&["security-group", "rm", "web"]);
    home.fails(&["security-group", "describe", "web"], 254, "InvalidGroup.NotFound");
    home.fails(&["modify", "one", "--security-group", "web"], 254, "InvalidGroup.NotFound");
}

fn authorize<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["security-group", "authorize"][..], more].concat()
}

#[test]
fn rules_are_typed_as_at_aws() {
    let Some(home) = home("rules_are_typed") else { return };
    let web = home.ok(&["security-group", "create", "web"]);
    home.ok(&["security-group", "create", "db"]);
    home.ok(&authorize(&[
        "db",
        "--protocol",
        "tcp",
        "--port",
        "5432",
        "--source-group",
        "web",
        "--description",
        "from the web",
    ]));
    home.ok(&authorize(&["web", "--protocol", "tcp", "--port", "8000-8010", "--cidr", "10.1.2.3/8", "--cidr", "::/0"]));
    home.ok(&authorize(&["web", "--protocol", "icmp", "--port", "8--1", "--cidr", "0.0.0.0/0"]));
    home.ok(&authorize(&["web", "--protocol", "-1", "--cidr", "192.0.2.7/32"]));
    home.fails(
        &authorize(&["web", "--protocol", "tcp", "--cidr", "0.0.0.0/0"]),
        254,
        "Must specify both from and to ports",
    );
    home.fails(
        &authorize(&["web", "--protocol", "tcp", "--port", "99999", "--cidr", "0.0.0.0/0"]),
        254,
        "out of range",
    );
    home.fails(&authorize(&["web", "--protocol", "tcp", "--port", "22", "--cidr", "10.0.0.0"]), 254, "malformed");
    home.fails(&authorize(&["web", "--protocol", "tcp", "--port", "22"]), 252, "--source-group");
    let db = home.group("db");
    let pair = &db["IpPermissions"][0]["UserIdGroupPairs"][0];
    assert_eq!((pair["GroupId"].as_str(), pair["Description"].as_str()), (Some(web.as_str()), Some("from the web")));
    let described = home.group("web");
    assert_eq!(described["IpPermissions"][0]["IpRanges"][0]["CidrIp"], "10.0.0.0/8");
    assert_eq!(described["IpPermissions"][0]["Ipv6Ranges"][0]["CidrIpv6"], "::/0");
    assert_eq!(described["IpPermissions"].as_array().unwrap().len(), 3);
    assert_eq!(described["IpPermissionsEgress"][0]["IpProtocol"], "-1");
    let table = home.ok(&["security-group", "describe", "web"]);
    assert!(table.contains("8000-8010") && table.contains("type 8") && table.contains("egress"), "{table}");
    assert!(home.ok(&["security-group", "ls"]).contains("default VPC security group"));
    home.fails(&["security-group", "rm", "default"], 254, "CannotDelete");
    home.fails(&["security-group", "rm", "web"], 254, "DependencyViolation");
    let rule = described["Amiable"]["SecurityGroupRules"][1]["SecurityGroupRuleId"].as_str().unwrap();
    home.ok(&["security-group", "revoke", "web", "--rule-id", rule]);
    home.ok(&["security-group", "revoke", "web", "--egress", "--protocol", "all", "--cidr", "0.0.0.0/0"]);
    assert!(home.group("web")["IpPermissionsEgress"].as_array().unwrap().is_empty());
    home.ok(&["security-group", "rm", "db", "web"]);
}

#[test]
fn a_kill_between_record_and_process_is_made_good() {
    let Some(home) = home("a_kill_between") else { return };
    home.ok(&["security-group", "create", "web"]);
    let id = home.launch(&["--security-group", "web"]);
    let authorize =
        ["security-group", "authorize", "web", "--protocol", "tcp", "--port", "22", "--cidr", "127.0.0.0/8"];
    home.killed("security group: recorded", &authorize);
    assert!(!home.all_told());
    // Any command goes on with it.
    home.ok(&["ls"]);
    assert!(home.all_told());
    home.fails(&authorize, 254, "InvalidPermission.Duplicate");
    home.killed("modify: groups recorded", &["modify", &id, "--security-group", "default"]);
    assert!(!home.all_told());
    home.ok(&["ls"]);
    assert!(home.all_told());
    assert_eq!(home.groups_of(&id), ["default"]);
    // A process that is gone needs to know nothing.
    home.kill(home.process(&id));
    home.ok(&["modify", &id, "--security-group", "web"]);
    assert!(home.all_told());
}
