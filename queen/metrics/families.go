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
	gpus, vram, factsAge                          prom.Family
	transitions, lost, detection                  prom.Family
	hiveLive, hiveAge, hiveWorkers, hiveVRAM      prom.Family
}

func declare(f *prom.Families) families {
	return families{
		up:        f.Gauge("up", "1 if the queen answered this scrape in time; otherwise it is the only metric of the queen."),
		warm:      f.Gauge("warm", "1 once every hive that the queen should know was heard, or had its time."),
		unsure:    f.Gauge("unsure_reasons", "Reasons why the queen's answers may be incomplete now. 0 means sure."),
		doubts:    f.Gauge("in_doubt", "1 while the queen is not sure that it heard everybody and judges nobody."),
		connected: f.Gauge("connected", "1 while the queen is connected to NATS, as far as it knows."),
		jetstream: f.Gauge("jetstream_up", "1 while JetStream can be used. Absent for a queen that keeps nothing there."),

		jetstreamTrouble: f.Gauge("jetstream_trouble", "1 while JetStream waits for a person: no_space, or needs_restart where a server stopped what it could not write.", "kind"),
		eventsUnstored:   f.Counter("events_unstored_total", "Deaths and returns that went out before the stream had acknowledged them."),

		brakeZones:   f.Gauge("brake_zones", "Zones whose brake is on: so many hives fell silent at once that it is not believed yet."),
		brakeHeld:    f.Gauge("brake_held_hives", "Hives that the brake holds as unverified."),
		brakeLongest: f.Gauge("brake_longest_seconds", "Since when the brake that began first is on. 0 if none is."),

		selfPause:      f.Counter("self_pause_seconds_total", "Time the queen itself was stopped or starved of CPU."),
		blind:          f.Counter("blind_seconds_total", "Time credited to all deadlines, as the queen could not hear or could not be sure."),
		ignored:        f.Counter("disconnects_ignored_total", "Connections that closed and were taken for their NATS server's, by which no hive is lost: more than 3 within a second."),
		snapshots:      f.Counter("snapshots_total", "Pages of snapshots taken over."),
		refused:        f.Counter("refused_total", "Messages that changed nothing, by reason.", "reason"),
		repliesRefused: f.Counter("replies_refused_total", "Requests of which nothing was done, as they named a subject to answer to that is no inbox."),
		dropped:        f.Counter("dropped_total", "Messages dropped because the queen was too slow."),
		incomplete:     f.Counter("snapshots_incomplete_total", "Snapshots of which not all pages came."),
		pending:        f.Gauge("pending_snapshots", "Snapshots that wait to be taken."),

		falseDead: f.Counter("false_dead_total", "Verdicts of this queen disproved by the same incarnation, which was heard too late."),
		cutOff:    f.Counter("cut_off_total", "Verdicts of this queen disproved by the same incarnation, which had gone on while its messages did not come."),
		margin:    f.Histogram("margin_seconds", "How long after a verdict of this queen the same incarnation was heard again."),
		disproved: f.Counter("disproved_total", "Lost ones that were heard again in the same incarnation, whoever had judged them.", "of"),

		adoptedHives:   f.Gauge("adopted_hives", "Lost hives whose workers the queen judges."),
		adoptedWorkers: f.Gauge("adopted_workers", "Workers of lost hives, which the queen judges."),
		adoptedBeats:   f.Counter("adopted_beats_total", "Beats heard of such workers."),

		eventsWaiting:   f.Gauge("events_waiting", "Transitions of workers that wait to be published."),
		eventsPublished: f.Counter("events_published_total", "Transitions of workers stored, or found to be stored by another queen."),
		eventsDropped:   f.Counter("events_dropped_total", "Transitions of workers given up: a gap tells of them."),
		putsWaiting:     f.Gauge("puts_waiting_hives", "Hives with a snapshot that waits to be put into the bucket."),
		puts:            f.Counter("puts_total", "Pages of snapshots offered to the bucket, by what became of them. Stale: another queen was faster.", "result"),

		hives:    f.Gauge("hives", "Hives known, by verdict.", "live"),
		workers:  f.Gauge("workers", "Workers known, by verdict as shown: one whose facts are too old is at best late.", "live"),
		states:   f.Gauge("alive_workers", "Workers that are alive, by what they say of themselves.", "state"),
		looping:  f.Gauge("looping_workers", "Workers that restart over and over: 3 times within 5 minutes, and last within 10 minutes."),
		stale:    f.Gauge("stale_hives", "Hives that are alive or late, with facts too old to be used."),
		failing:  f.Gauge("collect_failing_hives", "Hives with fresh facts that can not collect something, by source.", "source"),
		gpus:     f.Gauge("gpus", "GPUs of hives with fresh facts."),
		vram:     f.Gauge("vram_bytes", "GPU memory of hives with fresh facts: ours is held by workers, foreign by other processes. The kinds add up to all there is.", "kind"),
		factsAge: f.Gauge("gpu_facts_oldest_seconds", "Age of the oldest facts of a GPU, of hives with fresh snapshots."),

		transitions: f.Counter("transitions_total", "Transitions that this queen took, by whose and kind. Every queen counts all.", "of", "kind"),
		lost:        f.Counter("lost_total", "Verdicts lost, by whose and cause. Every queen counts all.", "of", "cause"),
		detection: f.Histogram("detection_seconds", "Time from the end to the verdict lost, by whose and cause. Of missed and hive since it was heard last, which is longer; "+
			"of other causes where the end was seen.", "of", "cause"),

		hiveLive:    f.Gauge("hive_live", "1 for the verdict on this hive.", "hive", "zone", "live"),
		hiveAge:     f.Gauge("hive_age_seconds", "Age of the last snapshot of this hive.", "hive", "zone"),
		hiveWorkers: f.Gauge("hive_workers", "Workers of this hive, by verdict as shown.", "hive", "zone", "live"),
		hiveVRAM:    f.Gauge("hive_vram_bytes", "GPU memory of this hive, while its facts are fresh, by kind.", "hive", "zone", "kind"),
	}
}
