{{- /*
The alerts, once for both uses: the PrometheusRule of the chart, and rules/halyard-relay.yaml for a Prometheus without
the operator, which `python -m tests.charts.write_rules` writes from this with the default thresholds. The braces that
stand in quotes are those of Prometheus' own templates.
*/}}
{{- define "halyard-relay.alerts" -}}
{{- $t := .Values.prometheusRule.thresholds -}}
groups:
  - name: halyard-relay
    rules:
      - alert: HalyardRelayNotReady
        expr: halyard_relay_ready == 0
        for: {{ $t.notReadyFor }}
        labels:
          severity: critical
        annotations:
          summary: "The relay {{ "{{" }} $labels.instance {{ "}}" }} is not ready."
          description: "Its readiness probe says no, so no traffic reaches it."
          remedy: "GET /readyz on the admin port names the fault: no configuration, a closed listener, a full or failed spool, an age beyond relay.admin.max_stale_s."
      - alert: HalyardRelayNoConfiguration
        expr: halyard_relay_environments == 0 or halyard_relay_environments_lacking > 0
        for: {{ $t.notReadyFor }}
        labels:
          severity: critical
        annotations:
          summary: "The relay {{ "{{" }} $labels.instance {{ "}}" }} lacks a configuration."
          description: "It holds nothing for at least one environment that its key covers."
          remedy: "Look at last_error under follower in /status; check relay.upstream.url and that the relay key is neither revoked nor of another project."
      - alert: HalyardRelayStale
        expr: max without (environment) (halyard_relay_config_age_seconds) > {{ $t.staleSeconds }}
        for: 1m
        labels:
          severity: warning
        annotations:
          summary: "The relay {{ "{{" }} $labels.instance {{ "}}" }} serves a stale configuration."
          description: "The authority last confirmed its configuration {{ "{{" }} $value {{ "}}" }} s ago. Flags are answered from it, and changes do not arrive."
          remedy: "Check the way to the upstream, then the upstream itself. A relay catches up by itself once it is reached."
      - alert: HalyardRelayDisconnected
        expr: halyard_relay_upstream_connected == 0
        for: {{ $t.disconnectedFor }}
        labels:
          severity: warning
        annotations:
          summary: "The relay {{ "{{" }} $labels.instance {{ "}}" }} is not connected to its upstream."
          description: "Its change stream is closed; it tries again with growing waits."
          remedy: "last_error under follower in /status says why: a refused key, a proxy that answers in the upstream's place, or nobody."
      - alert: HalyardRelayConfigRefused
        expr: halyard_relay_config_refusals > 0
        for: 1m
        labels:
          severity: critical
        annotations:
          summary: "The relay {{ "{{" }} $labels.instance {{ "}}" }} refuses a configuration."
          description: "The upstream offers {{ "{{" }} $value {{ "}}" }} configurations that cannot be used; the revision before is served."
          remedy: "/status lists each with its place and reason under follower.refused. Undo the change, or bring the relay to the upstream's version."
      - alert: HalyardRelayConfigGaps
        expr: sum without (kind) (halyard_relay_config_gaps) > 0
        for: 10m
        labels:
          severity: warning
        annotations:
          summary: "The relay {{ "{{" }} $labels.instance {{ "}}" }} passes over parts of a configuration."
          description: "{{ "{{" }} $value {{ "}}" }} rules or flags of {{ "{{" }} $labels.environment {{ "}}" }} are set aside when it is evaluated."
          remedy: "/status names them under gaps of the environment: an operator that this version does not know, a segment or a prerequisite that is missing. Update the relay, or mend the flags."
      - alert: HalyardRelaySpoolFilling
        expr: halyard_relay_spool_bytes / halyard_relay_spool_limit_bytes > {{ $t.spoolRatio }}
        for: 5m
        labels:
          severity: warning
        annotations:
          summary: "The relay {{ "{{" }} $labels.instance {{ "}}" }} has a spool that fills."
          description: "{{ "{{" }} $value | humanizePercentage {{ "}}" }} of the disk space for events is taken; once it is full, events are answered 503."
          remedy: "Look at halyard_relay_forward_attempts_total by outcome: failed and busy are the upstream or the way to it, denied is the relay key. relay.events.spool_bytes can be raised."
      - alert: HalyardRelaySpoolNotWritable
        expr: halyard_relay_spool_writable == 0
        for: 1m
        labels:
          severity: critical
        annotations:
          summary: "The relay {{ "{{" }} $labels.instance {{ "}}" }} takes no events."
          description: "Its spool is full or its disk has failed; applications get 503 for events and the relay is not ready."
          remedy: "/status says under spool which of the two. Full: let the upstream take events, or raise relay.events.spool_bytes. Failed: mend the disk and restart the relay."
      - alert: HalyardRelayEventsDelayed
        expr: halyard_relay_spool_oldest_age_seconds > {{ $t.oldestEventSeconds }}
        for: 5m
        labels:
          severity: warning
        annotations:
          summary: "The relay {{ "{{" }} $labels.instance {{ "}}" }} forwards events late."
          description: "The oldest event that waits is {{ "{{" }} $value {{ "}}" }} s old. Nothing is lost."
          remedy: "As for HalyardRelaySpoolFilling. After an outage of the upstream the rest goes out at relay.events.forward_per_s."
      - alert: HalyardRelayEventsQuarantined
        expr: halyard_relay_spool_quarantine_bytes > 0
        for: 0m
        labels:
          severity: warning
        annotations:
          summary: "The relay {{ "{{" }} $labels.instance {{ "}}" }} has set records aside."
          description: "{{ "{{" }} $value {{ "}}" }} bytes are in the quarantine: records that the authority refused for good, or that the disk has damaged."
          remedy: "Look at the files and their reasons in spool/quarantine of relay.data.dir; delete them when they are understood, which ends this alert."
      - alert: HalyardRelayCountsLost
        expr: increase(halyard_relay_counts_lost_total[15m]) > 0
        for: 0m
        labels:
          severity: warning
        annotations:
          summary: "The relay {{ "{{" }} $labels.instance {{ "}}" }} loses evaluation counts."
          description: "{{ "{{" }} $value {{ "}}" }} evaluations of the last 15 minutes were answered and not counted: there are more distinct counts than rows."
          remedy: "Raise relay.events.max_counters, or shorten relay.events.flush_s."
      - alert: HalyardRelayTaskFailing
        expr: increase(halyard_relay_task_failures_total[15m]) > 0
        for: 0m
        labels:
          severity: warning
        annotations:
          summary: "The relay {{ "{{" }} $labels.instance {{ "}}" }} restarts a background task."
          description: "The task \"{{ "{{" }} $labels.task {{ "}}" }}\" failed {{ "{{" }} $value {{ "}}" }} times in 15 minutes; ten failures within five minutes make the process not alive."
          remedy: "The log has the traceback under \"background task failed\"; report it as a defect."
      - alert: HalyardRelayLoopLag
        expr: halyard_relay_loop_lag_max_seconds > {{ $t.loopLagSeconds }}
        for: 5m
        labels:
          severity: warning
        annotations:
          summary: "The relay {{ "{{" }} $labels.instance {{ "}}" }} has a loop that stalls."
          description: "Again and again its event loop came round {{ "{{" }} $value {{ "}}" }} s late; every request waited that long."
          remedy: "Compare with process_cpu_seconds_total: a relay that has no processor left needs another replica or a higher CPU limit; one that is throttled needs its limit removed."
      - alert: HalyardRelayChangesSlow
        expr: histogram_quantile(0.99, rate(halyard_relay_change_latency_seconds_bucket[10m])) > {{ $t.changeLatencySeconds }}
        for: 10m
        labels:
          severity: warning
        annotations:
          summary: "The relay {{ "{{" }} $labels.instance {{ "}}" }} tells its clients of changes late."
          description: "One in a hundred took longer than {{ "{{" }} $value {{ "}}" }} s from the commit at the authority to the write to a client."
          remedy: "halyard_relay_apply_latency_seconds tells whether the time goes by before the relay (upstream, network, clocks that differ) or in it (loop lag, number of streams)."
      - alert: HalyardRelayStreamsCut
        expr: sum without (kind, reason) (rate(halyard_relay_goodbyes_total{reason="slow"}[10m])) * 60 > {{ $t.cutStreamsPerMinute }}
        for: 10m
        labels:
          severity: warning
        annotations:
          summary: "The relay {{ "{{" }} $labels.instance {{ "}}" }} cuts slow clients."
          description: "{{ "{{" }} $value {{ "}}" }} streams a minute are cut because their client takes no byte for relay.serve.streams.send_deadline_s."
          remedy: "Clients that are suspended or behind a broken network are cut on purpose. If many are, look for a proxy between them and the relay that buffers streams."
      - alert: HalyardRelayStreamsAtCapacity
        expr: sum without (kind) (halyard_relay_streams_open) / halyard_relay_streams_limit > {{ $t.capacityRatio }}
        for: 5m
        labels:
          severity: warning
        annotations:
          summary: "The relay {{ "{{" }} $labels.instance {{ "}}" }} has nearly as many streams as it may."
          description: "{{ "{{" }} $value | humanizePercentage {{ "}}" }} of relay.serve.streams.total are open; clients beyond it get 503."
          remedy: "Add replicas, or raise relay.serve.streams.total together with relay.serve.limits.connections and the memory limit."
      - alert: HalyardRelayConnectionsAtCapacity
        expr: halyard_relay_connections_open / halyard_relay_connections_limit > {{ $t.capacityRatio }}
        for: 5m
        labels:
          severity: warning
        annotations:
          summary: "The relay {{ "{{" }} $labels.instance {{ "}}" }} has nearly as many connections as it may."
          description: "{{ "{{" }} $value | humanizePercentage {{ "}}" }} of relay.serve.limits.connections are open; more are refused."
          remedy: "Add replicas, raise relay.serve.limits.connections, or shorten relay.serve.keep_alive_s."
      - alert: HalyardRelayConnectionsRefused
        expr: sum without (limit) (rate(halyard_relay_refused_connections_total[5m])) * 60 > {{ $t.refusedConnectionsPerMinute }}
        for: 5m
        labels:
          severity: warning
        annotations:
          summary: "The relay {{ "{{" }} $labels.instance {{ "}}" }} refuses connections."
          description: "{{ "{{" }} $value {{ "}}" }} connections a minute break a limit of the listener."
          remedy: "halyard_relay_refused_connections_total says by limit which one: too many connections, or requests that are too large or too slow."
      - alert: HalyardRelayKillWaiting
        expr: halyard_relay_overlays{state="pending"} > 0
        for: {{ $t.killPendingFor }}
        labels:
          severity: critical
        annotations:
          summary: "The relay {{ "{{" }} $labels.instance {{ "}}" }} holds a kill that the authority does not have."
          description: "{{ "{{" }} $value {{ "}}" }} flags are off here only. Other relays may still serve them, and the kill ends at relay.changes.overlay_ttl_s."
          remedy: "/status shows the kills under overlays and outbox with the last error. Switch the flag off at the upstream as well if it can be reached."
      - alert: HalyardRelaySnapshotNotWritten
        expr: increase(halyard_relay_snapshot_failures_total[15m]) > 0
        for: 0m
        labels:
          severity: warning
        annotations:
          summary: "The relay {{ "{{" }} $labels.instance {{ "}}" }} cannot write its snapshot file."
          description: "{{ "{{" }} $value {{ "}}" }} writes failed in 15 minutes; a restart would begin with an older configuration."
          remedy: "The log says why; usually the volume of relay.data.dir is full or read-only."
      - alert: HalyardRelayMemory
        expr: process_resident_memory_bytes / halyard_relay_memory_limit_bytes > {{ $t.memoryRatio }}
        for: 5m
        labels:
          severity: warning
        annotations:
          summary: "The relay {{ "{{" }} $labels.instance {{ "}}" }} is near its memory limit."
          description: "It takes {{ "{{" }} $value | humanizePercentage {{ "}}" }} of what its container may use, and would be killed beyond it."
          remedy: "Raise resources.limits.memory, or lower relay.serve.streams.total and relay.window.bytes."
{{- end }}
