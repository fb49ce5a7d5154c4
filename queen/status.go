package queen

import (
	"fmt"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/queencore"
	"github.com/beatfabric/hivebeat/queen/api"
)

func restarted(hives int) string {
	if hives == 1 {
		return "1 hive has just restarted"
	}
	return fmt.Sprintf("%d hives have just restarted", hives)
}

// status returns how sure an answer is.
func (q *Queen) status(now time.Time) api.Status {
	s := api.Status{
		AsOf: now.UTC().Round(0), Queen: q.cfg.ID, Warm: q.core.Warm(), JetStream: !q.cfg.NoJetStream && q.store.there(),
	}
	unsure := func(format string, args ...any) { s.Unsure = append(s.Unsure, fmt.Sprintf(format, args...)) }
	if since, cut := q.core.Hearing().CutSince(); cut {
		unsure("this queen is cut off from NATS for %.1fs and hears nobody", now.Sub(since).Seconds())
	} else if since, ok := q.core.Hearing().Doubts(); ok {
		unsure("this queen is not sure that it heard everybody in the last %.1fs, and judges nobody until it is", now.Sub(since).Seconds())
	} else if n, since := q.core.Unheard(); n > 0 {
		unsure("this queen was stopped, starved or cut off until %.1fs ago and has not heard %d hives since", now.Sub(since).Seconds(), n)
	}
	if !s.Warm {
		unsure("this queen has just started and has not heard every hive that it should know")
	}
	switch trouble := q.core.StoreTrouble(); {
	case q.cfg.NoJetStream:
	case trouble == queencore.NeedsRestart && s.JetStream:
		unsure("%s, perhaps as a disk is full: make room and restart that server", q.core.StoppedStore())
	case trouble == queencore.NeedsRestart:
		unsure("%s, perhaps as a disk is full: make room and restart that server; events wait, deaths go out unstored: %s", q.core.StoppedStore(), q.store.reason())
	case trouble == queencore.NoSpace && s.JetStream:
		unsure("JetStream had no space when it was written to last: events wait, deaths go out unstored")
	case trouble == queencore.NoSpace:
		unsure("JetStream has no space: make room; events wait, deaths go out unstored: %s", q.store.reason())
	case !s.JetStream:
		unsure("JetStream is away: %s; this is what this queen has heard itself, and events wait", q.store.reason())
	}
	if s.Warm && !s.JetStream && now.Sub(q.core.Up()) < q.cfg.Fresh {
		unsure("this queen started %.0fs ago without a memory: a hive that was silent since is not known to it", now.Sub(q.core.Up()).Seconds())
	}
	if n := q.view.Index().Totals().Warming; n > 0 {
		unsure("%s, and may not know all workers yet", restarted(n))
	}
	if hives, workers := q.view.Doubtful(), q.view.Index().Totals().Closed; hives+workers > 0 {
		unsure("the connections of %d hives and %d workers closed, and they were not heard since: they may be gone, and are not picked", hives, workers)
	}
	if why := q.view.Apart(); why != "" {
		unsure("this queen may be the one that is cut off (%s): hives that it does not hear are unverified, and it tells other queens nothing of them", why)
	}
	held := 0
	for _, z := range q.view.Brakes() {
		since, n, _ := z.On()
		held += n
		s.Brake = append(s.Brake, api.BrakeInfo{Zone: z.Name(), Held: n, Since: hivebeat.MillisOf(now.Sub(since))})
		unsure("the brake is on in %s for %.1fs: so many hives fell silent at once that this is not believed; %d are held as unverified", zoneWords(z.Name()), now.Sub(since).Seconds(), n)
	}
	if n := q.view.Unverified() - held; n > 0 {
		unsure("%d hives are known from memory alone, or were silent when this queen may have been cut off, and were not heard yet", n)
	}
	if n, by := q.view.Index().DoubtedElsewhere(now); n > 0 {
		unsure("queen %s doubts %d hives that are alive to this queen, which has heard no more of them: they are not picked", by, n)
	}
	if ids := q.core.OtherStores(now); len(ids) > 0 {
		unsure("queens %s keep hives and events in another JetStream than this one: holds and verdicts are not shared with them", strings.Join(ids, ", "))
	}
	return s
}

func zoneWords(zone string) string {
	if zone == "" {
		return "no zone"
	}
	return "zone " + zone
}
