package doctor

import (
	"cmp"
	"strings"

	"github.com/nats-io/nats.go/micro"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/gpu"
	"github.com/beatfabric/hivebeat/queen/api"
)

// need is one permission that a role needs.
type need struct {
	publish bool // false: to subscribe
	subject string
	why     string
	// without says what goes wrong without it. Empty means that the role does not work
	// at all.
	without string
	look    bool   // the check of JetStream needs it too
	makes   string // needed only if this stream does not exist
	beyond  bool   // to hold and release, which the role should not have
}

// jsAPI is the prefix of JetStream requests.
const jsAPI = "$JS.API."

const oneQueen = "answers that are shown together may come from different queens"

const noGPUs = "a GPU that disappears while the hive is down is not missed"

const lateWarm = "a hive that restarted is warm only after 45 s, not as soon as it has heard its workers"

func (n need) verb() string {
	if n.publish {
		return "publish to"
	}
	return "subscribe to"
}

// Permissions are the subjects to allow for a NATS user, as its configuration lists
// them.
type Permissions struct {
	Publish   []string `json:"publish"`
	Subscribe []string `json:"subscribe"`
}

// Permissions returns the permissions that the role of c needs, with a wildcard for
// each unknown id. They are the ones that `doctor` probes and an operator copies. A
// queen also needs allow_responses for its answers, or to publish to _INBOX.> and
// _R_.>.
func (c Config) Permissions() Permissions {
	var p Permissions
	for _, n := range c.needs("_INBOX.>") {
		if n.beyond {
			continue
		}
		if n.publish {
			p.Publish = append(p.Publish, wild(n.subject))
		} else {
			p.Subscribe = append(p.Subscribe, wild(n.subject))
		}
	}
	return p
}

// wild returns subject with a wildcard for each unknown id.
func wild(subject string) string {
	t := strings.Split(subject, ".")
	for i := range t {
		if t[i] == madeUp {
			t[i] = "*"
		}
	}
	return strings.Join(t, ".")
}

// needs returns the subjects that the role of c uses. inbox is the subject on which it
// receives answers.
func (c Config) needs(inbox string) []need {
	s := c.Subjects
	hive, worker := cmp.Or(c.Hive, madeUp), cmp.Or(c.Worker, madeUp)
	pub := func(subject, why, without string) need {
		return need{publish: true, subject: subject, why: why, without: without}
	}
	sub := func(subject, why, without string) need {
		return need{subject: subject, why: why, without: without}
	}
	verbs := api.Verbs()
	answers := need{subject: inbox, why: "receive answers", look: true}

	switch c.Role {
	case Worker:
		beats := s.Workers(hive)
		if c.Pinned {
			beats = s.Worker(hive, worker)
		}
		return []need{
			pub(beats, "beat", ""),
			sub(s.WorkerRollcall(hive), "hear roll calls", "a hive that restarted knows the worker only after its next beat"),
		}
	case Hive:
		snapshots := s.Hives()
		if c.Pinned {
			snapshots = s.Hive(hive)
		}
		bucket := s.Bucket(hivebeat.BucketHives)
		key := "DIRECT.GET.KV_" + bucket + ".$KV." + bucket + "." + hive
		recall := func(subject string) need {
			return pub(subject, "read its last snapshot", lateWarm)
		}
		roster := s.Bucket(hivebeat.BucketRoster)
		gpus := func(subject string) need {
			return pub(subject, "read which GPUs it had", noGPUs)
		}
		answers.without = lateWarm
		list := []need{
			recall(jsAPI + "STREAM.INFO.KV_" + bucket), recall(jsAPI + key), recall(jsAPI + key + "." + madeUp), answers,
			gpus(jsAPI + "STREAM.INFO.KV_" + roster), gpus(jsAPI + "DIRECT.GET.KV_" + roster + ".$KV." + roster + "." + gpu.MemoryKey(hive)),
			pub(snapshots, "send snapshots", ""),
			pub(s.WorkerRollcall(hive), "call its workers", "a hive that restarted knows its workers only after their next beats"),
			sub(s.Workers(hive), "hear its workers", ""),
			sub(s.WorkersPinned(hive), "hear workers that beat on their own subject", "workers with --pinned are not heard"),
			sub(s.HiveRollcall(), "hear roll calls", "a queen that restarted knows the hive only after its next snapshot"),
			sub(s.HiveRollcallOf(hive), "hear roll calls for itself", "a queen that restarted knows the hive only after its next snapshot"),
		}
		if c.Discover {
			list = append(list, pub(s.Workers(hive), "beat for the engines that it finds", ""),
				sub(s.WorkerRollcall(hive), "hear roll calls for these", "a hive that restarted knows these only after their next beats"))
		}
		return list
	case Viewer, Scheduler:
		ping, _ := micro.ControlSubject(micro.PingVerb, "queen", "")
		list := []need{
			answers, sub(s.Events(), "hear events", "watch shows changes only when it asks again"),
			pub(ping, "find a queen that starts", "a queen that has just started is not found"),
		}
		for _, v := range verbs {
			if c.Role == Viewer && api.Acts(v) {
				asker := cmp.Or(c.Asker, madeUp)
				for _, subject := range []string{s.API(v), s.Ask("", v, madeUp), s.Ask(asker, v, ""), s.Ask(asker, v, madeUp)} {
					list = append(list, need{publish: true, subject: subject, beyond: true})
				}
				continue
			}
			list = append(list, pub(s.Ask(c.Asker, v, ""), "ask a queen", ""), pub(s.Ask(c.Asker, v, madeUp), "ask one queen", oneQueen))
		}
		return list
	}

	list := []need{
		sub(s.Hives(), "hear hives", ""),
		sub(s.HivesPinned(), "hear hives that send on their own subject", "hives with --pinned are not heard"),
		pub(s.HiveRollcall(), "call all hives", "a queen that restarted knows a hive only after its next snapshot"),
		pub(s.HiveRollcallOf(madeUp), "call one hive", "a queen that restarted knows a hive only after its next snapshot"),
	}
	const orphans = "the workers of a lost hive stay late, and no queen judges them"
	list = append(list,
		sub(s.Workers(madeUp), "hear the workers of a lost hive", orphans),
		sub(s.WorkersPinned(madeUp), "hear such workers on their own subjects", orphans),
		pub(s.WorkerRollcall(madeUp), "call such workers", "the workers of a lost hive are known to be alive only after their next beats"))
	for _, v := range verbs {
		list = append(list, sub(s.API(v), "receive requests", ""), sub(s.Ask(madeUp, v, ""), "receive requests from askers with an id", ""),
			sub(s.Ask("", v, madeUp), "receive requests for itself", oneQueen), sub(s.Ask(madeUp, v, madeUp), "receive requests for itself", oneQueen))
	}
	const alone = "no other queen answers in place of a stopped one, and queens do not learn of each other's doubts"
	list = append(list,
		sub(s.Events(), "hear events", "answers about events lack the newest"),
		pub(s.Peers(), "be heard by other queens", alone), sub(s.Peers(), "hear other queens", alone))
	for _, v := range []micro.Verb{micro.PingVerb, micro.InfoVerb, micro.StatsVerb} {
		all, _ := micro.ControlSubject(v, "", "")
		kind, _ := micro.ControlSubject(v, "queen", "")
		one, _ := micro.ControlSubject(v, "queen", madeUp)
		for _, subject := range []string{all, kind, one} {
			list = append(list, sub(subject, "be found", "nats micro does not see the queen"))
		}
	}
	tell := s.Event
	if !c.NoJetStream {
		tell = s.EventLog
	}
	for _, of := range [][2]string{{"", ""}, {madeUp, ""}, {madeUp, madeUp}} {
		list = append(list, pub(tell(of[0], of[1], madeUp), "publish events", ""))
	}
	if c.NoJetStream {
		return list
	}
	const untold = "deaths are not reported while JetStream is away"
	list = append(list, pub(s.LiveEvent(madeUp, "", madeUp), "publish deaths that are not stored yet", untold),
		pub(s.LiveEvent(madeUp, madeUp, madeUp), "publish deaths of workers that are not stored yet", untold))
	list = append(append(list, answers), c.stored()...)
	if c.Webhooks {
		list = append(list, c.webhooks()...)
	}
	return list
}

// ackNumbers is how many numbers follow in the subject of an acknowledgement.
const ackNumbers = 5

const noWebhooks = "its webhooks receive nothing"

// webhooks returns the needs of the consumers for webhooks, whose names are derived
// from the URLs.
func (c Config) webhooks() (list []need) {
	of := c.Subjects.Stream(hivebeat.StreamEvents) + "." + madeUp
	for _, subject := range []string{
		jsAPI + "CONSUMER.INFO." + of, jsAPI + "CONSUMER.CREATE." + of, jsAPI + "CONSUMER.MSG.NEXT." + of, "$JS.ACK." + of + strings.Repeat("."+madeUp, ackNumbers),
	} {
		list = append(list, need{publish: true, subject: subject, why: "read events for its webhooks", without: noWebhooks})
	}
	return list
}

// stored returns the needs for storing in JetStream: the requests of internal/ledger.
func (c Config) stored() []need {
	pub := func(subject, why string) need { return need{publish: true, subject: subject, why: why} }
	look := func(subject string) need {
		return need{publish: true, subject: subject, why: "look at JetStream", look: true}
	}
	list := []need{look(jsAPI + "INFO")}
	hives, roster, holds := c.Subjects.Bucket(hivebeat.BucketHives), c.Subjects.Bucket(hivebeat.BucketRoster), c.Subjects.Bucket(hivebeat.BucketHolds)
	for _, stream := range []string{"KV_" + hives, "KV_" + roster, "KV_" + holds, c.Subjects.Stream(hivebeat.StreamEvents)} {
		list = append(list, look(jsAPI+"STREAM.INFO."+stream),
			need{publish: true, subject: jsAPI + "STREAM.CREATE." + stream, why: "create buckets and the stream", makes: stream})
	}
	events := c.Subjects.Stream(hivebeat.StreamEvents)
	for _, subject := range []string{
		jsAPI + "CONSUMER.CREATE." + events + "." + madeUp + "." + c.Subjects.EventLogs(),
		jsAPI + "CONSUMER.MSG.NEXT." + events + "." + madeUp,
		jsAPI + "CONSUMER.DELETE." + events + "." + madeUp,
	} {
		list = append(list, pub(subject, "read events"))
	}
	for _, bucket := range []string{hives, roster, holds} {
		stream, key := "KV_"+bucket, "$KV."+bucket+"."+madeUp
		keys := []string{key}
		switch bucket {
		case holds: // w.<hive>.<worker>
			keys = []string{"$KV." + bucket + ".w." + madeUp + "." + madeUp}
		case hives, roster:
			keys = append(keys, key+"."+madeUp) // <hive>.<page>; gpus.<hive>, op.<hive> and brake.<zone>
		}
		for _, key := range keys {
			list = append(list, pub(key, "store snapshots, verdicts and holds"), pub(jsAPI+"DIRECT.GET."+stream+"."+key, "read stored records"))
		}
		for _, subject := range []string{
			jsAPI + "STREAM.MSG.GET." + stream,
			jsAPI + "CONSUMER.CREATE." + stream + "." + madeUp + ".$KV." + bucket + ".>",
			jsAPI + "CONSUMER.MSG.NEXT." + stream + "." + madeUp,
			jsAPI + "CONSUMER.INFO." + stream + "." + madeUp,
			jsAPI + "CONSUMER.DELETE." + stream + "." + madeUp,
		} {
			list = append(list, pub(subject, "read stored records"))
		}
	}
	return list
}
