package metrics

import "github.com/beatfabric/hivebeat/internal/prom"

// families are the metrics of a queen. Operators depend on the names and help texts: a
// changed name breaks their alerting rules, and the list in testdata.
type families struct {
	up, warm, unsure, doubts, connected           prom.Family
	jetstream, jetstreamTrouble, eventsUnstored   prom.Family
	brakeZones, brakeHeld, brakeLongest           prom.Family
	selfPause, blind, ignored                     prom.Family
	snapshots, refused, dropped, incomplete       prom.Family
	repliesRefused                                prom.Family
	pending                                       prom.Family
	falseDead, cutOff, margin, disproved          prom.Family
	adoptedHives, adoptedWorkers, adoptedBeats    prom.Family
	eventsWaiting, eventsPublished, eventsDropped prom.Family
	putsWaiting, puts                             prom.Family
	hives, workers, states, stale, failing        prom.Family
	looping                                       prom.Family
	gpus, gpuHives, vram, vramStale, factsAge     prom.Family
	transitions, lost, detection                  prom.Family
	hiveLive, hiveAge, hiveWorkers, hiveVRAM      prom.Family
}

func declare(f *prom.Families) families {
	return families{
		up:        f.Gauge("up", "1 if the queen answered this scrape in time; otherwise it is the only metric of the queen."),
		warm:      f.Gauge("warm", "1 once every hive that the queen should know was heard, or had time to be heard."),
		unsure:    f.Gauge("unsure_reasons", "Reasons why the queen's answers may be incomplete now. 0 means sure."),
		doubts:    f.Gauge("in_doubt", "1 while the queen is not sure that it heard every hive, and judges none."),
		connected: f.Gauge("connected", "1 while the queen is connected to NATS, as far as it knows."),
		jetstream: f.Gauge("jetstream_up", "1 while JetStream can be used. Absent for a queen that keeps nothing there."),

		jetstreamTrouble: f.Gauge("jetstream_trouble", "1 while JetStream waits for an operator: no_space, or needs_restart if a server stopped what it could not write.", "kind"),
		eventsUnstored:   f.Counter("events_unstored_total", "Deaths and returns that went out before the stream had acknowledged them."),

		brakeZones:   f.Gauge("brake_zones", "Zones whose brake is on: too many hives fell silent at once for their silence to be believed yet."),
		brakeHeld:    f.Gauge("brake_held_hives", "Hives that the brake holds as unverified."),
		brakeLongest: f.Gauge("brake_longest_seconds", "How long the brake that began first has been on. 0 if none is on."),

		selfPause:      f.Counter("self_pause_seconds_total", "Time the queen itself was stopped or starved of CPU."),
		blind:          f.Counter("blind_seconds_total", "Time credited to all deadlines because the queen could not hear or could not be sure."),
		ignored:        f.Counter("disconnects_ignored_total", "Closed connections attributed to their NATS server, so that no hive is lost by them: more than 3 within a second."),
		snapshots:      f.Counter("snapshots_total", "Pages of snapshots applied."),
		refused:        f.Counter("refused_total", "Messages that changed nothing, by reason.", "reason"),
		repliesRefused: f.Counter("replies_refused_total", "Requests not carried out because their reply subject is not an inbox."),
		dropped:        f.Counter("dropped_total", "Messages dropped because the queen was too slow."),
		incomplete:     f.Counter("snapshots_incomplete_total", "Snapshots that a newer one replaced before all their pages arrived."),
		pending:        f.Gauge("pending_snapshots", "Snapshots waiting to be applied."),

		falseDead: f.Counter("false_dead_total", "Verdicts of this queen disproved by the same incarnation, which was heard too late."),
		cutOff:    f.Counter("cut_off_total", "Verdicts of this queen disproved by the same incarnation, which had kept sending while its messages did not arrive."),
		margin:    f.Histogram("margin_seconds", "How long after a verdict of this queen the same incarnation was heard again."),
		disproved: f.Counter("disproved_total", "Lost hives and workers that were heard again in the same incarnation, whichever queen or hive had judged them.", "of"),

		adoptedHives:   f.Gauge("adopted_hives", "Lost hives whose workers the queen judges."),
		adoptedWorkers: f.Gauge("adopted_workers", "Workers of lost hives, which the queen judges."),
		adoptedBeats:   f.Counter("adopted_beats_total", "Beats received from adopted workers."),

		eventsWaiting:   f.Gauge("events_waiting", "Transitions of workers that wait to be published."),
		eventsPublished: f.Counter("events_published_total", "Transitions of workers stored, or found to be stored by another queen."),
		eventsDropped:   f.Counter("events_dropped_total", "Transitions of workers given up: a gap event stands for them."),
		putsWaiting:     f.Gauge("puts_waiting_hives", "Hives with a snapshot waiting to be written to the bucket."),
		puts:            f.Counter("puts_total", "Pages of snapshots offered to the bucket, by result. stale: another queen was faster.", "result"),

		hives:    f.Gauge("hives", "Hives known, by verdict.", "live"),
		workers:  f.Gauge("workers", "Workers known, by verdict as shown: one whose facts are too old is at best late.", "live"),
		states:   f.Gauge("alive_workers", "Workers that are alive, by the state that they report.", "state"),
		looping:  f.Gauge("looping_workers", "Workers that restart repeatedly: at least 3 times within 5 minutes, most recently within 10 minutes."),
		stale:    f.Gauge("stale_hives", "Hives that are alive or late, with facts too old to be used."),
		failing:  f.Gauge("collect_failing_hives", "Hives with fresh facts that cannot read a source, by source.", "source"),
		gpus:     f.Gauge("gpus", "GPUs of hives that are up, by state. Only those that are ok or degraded can be used.", "state"),
		gpuHives: f.Gauge("gpu_hives", "Hives that are up with at least one GPU in this state.", "state"),
		vram: f.Gauge("vram_bytes", "GPU memory of GPUs that are ok or degraded, of hives with fresh facts: ours is held by workers with their descendants, orphaned by processes "+
			"whose worker has ended, foreign by processes that never belonged to a worker, unattributed by unknown ones, reserved by the driver. The kinds add up to the total.", "kind"),
		vramStale: f.Gauge("vram_stale_bytes", "GPU memory of which no current figure is known: of GPUs that are failing, gone or not read, and of hives whose facts are too old. It is in no kind of vram_bytes."),
		factsAge:  f.Gauge("gpu_facts_oldest_seconds", "Age of the oldest facts of a GPU that is neither failing nor gone, of hives with fresh snapshots."),

		transitions: f.Counter("transitions_total", "Transitions of hives and workers that this queen applied, by kind. Every queen counts all, but those that an operator silenced.", "of", "kind"),
		lost:        f.Counter("lost_total", "Verdicts lost on hives and workers, by cause. Every queen counts all, but those that an operator silenced.", "of", "cause"),
		detection: f.Histogram("detection_seconds", "Time until the verdict lost, by level and cause. For missed and hive, since the last message, which is longer than since the end; "+
			"for other causes, since the end, if it was seen.", "of", "cause"),

		hiveLive:    f.Gauge("hive_live", "1 for the verdict on this hive.", "hive", "zone", "live"),
		hiveAge:     f.Gauge("hive_age_seconds", "Age of the last snapshot of this hive.", "hive", "zone"),
		hiveWorkers: f.Gauge("hive_workers", "Workers of this hive, by verdict as shown.", "hive", "zone", "live"),
		hiveVRAM:    f.Gauge("hive_vram_bytes", "GPU memory of this hive, while its facts are fresh, by kind.", "hive", "zone", "kind"),
	}
}
