use super::*;

#[test]
fn cloud_init_announces_its_stages() {
    let line = |s| {
        format!(
            "[   20.347235] cloud-init[316]: Cloud-init v. 22.4.2 running '{s}' at Fri, 20 Nov 2026 22:25:51 +0000. Up 20.20 seconds."
        )
    };
    for (name, stage) in [
        ("init-local", Stage::CloudInitLocal),
        ("init", Stage::CloudInitNetwork),
        ("modules:config", Stage::CloudInitConfig),
        ("modules:final", Stage::CloudInitFinal),
    ] {
        assert_eq!(read_line(&line(name)), Some(Sign::Stage(stage)));
    }
    assert_eq!(read_line(&line("single")), None);
}

#[test]
fn the_end_of_cloud_init_is_read_with_its_data_source() {
    for (text, datasource) in [
        ("Datasource DataSourceEc2Local.  Up 47.45 seconds", "DataSourceEc2Local"),
        ("Datasource DataSourceNone.  Up 47.45 seconds", "DataSourceNone"),
        ("Datasource DataSourceNoCloud [seed=/dev/vdb][dsmode=net].  Up 47.45 seconds", "DataSourceNoCloud"),
    ] {
        let line = format!(
            "debian login: [   47.488818] cloud-init[454]: Cloud-init v. 25.1.4 finished at Fri, 20 Nov 2026 22:26:19 +0000. {text}"
        );
        let Some(Sign::Finished(finished)) = read_line(&line) else { panic!("not recognised: {line}") };
        assert_eq!(finished, Finished { version: "25.1.4".into(), datasource: datasource.into(), uptime: 47.45 });
    }
}

#[test]
fn a_cut_or_forged_line_is_no_sign() {
    for line in [
        "",
        "Cloud-init v. ",
        "Cloud-init v. 1 finished at ",
        "Cloud-init v. 1 finished at Datasource X",
        "Cloud-init v. 1 running '",
    ] {
        assert_eq!(read_line(line), None, "{line}");
    }
}

#[test]
fn kernel_and_system_signs() {
    assert_eq!(read_line("[  1.1] sysrq: Emergency Sync complete"), Some(Sign::Synced));
    assert_eq!(
        read_line("[  0.9] Kernel panic - not syncing: VFS: Unable to mount root fs"),
        Some(Sign::Panic("Kernel panic - not syncing: VFS: Unable to mount root fs".into()))
    );
    assert_eq!(
        read_line("[    1.58] systemd[1]: systemd 252.39-1 running in system mode"),
        Some(Sign::Stage(Stage::Init))
    );
    assert_eq!(read_line("[  OK  ] Started ssh.service - OpenBSD Secure Shell server."), Some(Sign::Stage(Stage::Ssh)));
    assert_eq!(read_line("[    0.0] Linux version 6.1"), None);
}
