package top

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"

	"github.com/beatfabric/hivebeat"
)

// Terminal is what Run draws on.
type Terminal struct {
	In  io.Reader
	Out io.Writer
	// Width and Height are of what does not tell its size. Zero: it is asked.
	Width, Height int
	// Take is told how to put the terminal back as it was, for whoever must leave at
	// once. It may be nil.
	Take func(restore func())
}

// Queen is who is asked, and what comes by itself.
type Queen struct {
	// Ask asks one queen as long as it answers: what is shown at once is of one.
	Ask Ask
	// Events returns those that came by themselves since the last call, having waited
	// for one until ctx ended, and how many came too fast so far.
	Events func(ctx context.Context) (events []hivebeat.Event, dropped int)
}

// Run shows m until it is quit or ctx ends, and leaves the terminal as it was.
func Run(ctx context.Context, m *Model, q Queen, t Terminal) error {
	ctx, cancel := context.WithCancel(ctx)
	a := &app{model: m, queen: q, ctx: ctx, stop: func() {}}
	profile := colorprofile.ASCII
	if m.paint {
		profile = colorprofile.ANSI
	}
	a.program = tea.NewProgram(a, tea.WithInput(t.In), tea.WithOutput(t.Out), tea.WithWindowSize(t.Width, t.Height),
		tea.WithoutSignalHandler(), tea.WithColorProfile(profile))
	if t.Take != nil {
		t.Take(func() { _ = a.program.ReleaseTerminal() })
	}
	var beside sync.WaitGroup
	beside.Go(func() { // a signal leaves in order
		<-ctx.Done()
		a.program.Quit()
	})
	beside.Go(func() {
		for ctx.Err() == nil {
			events, dropped := q.Events(ctx)
			if ctx.Err() == nil {
				a.program.Send(News{events, dropped})
			}
		}
	})
	beside.Go(func() { // no tick of Bubble Tea, as those outlive it
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for {
			a.program.Send(Tick{})
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
	})
	_, err := a.program.Run()
	cancel()
	beside.Wait()
	a.asking.Wait()
	if err != nil && !errors.Is(err, tea.ErrInterrupted) {
		return fmt.Errorf("terminal: %w", err)
	}
	return nil
}

// app is the model with a clock and somebody to ask.
type app struct {
	model   *Model
	queen   Queen
	program *tea.Program
	ctx     context.Context //nolint:containedctx // that of Run: bubbletea hands none on
	stop    func()          // of the round that is out
	asking  sync.WaitGroup
}

// Init has nothing to do: the first tick comes at once.
func (a *app) Init() tea.Cmd { return nil }

// Update hands messages to the model and does what it wants done.
func (a *app) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	var cmds []tea.Cmd
	var in any = msg
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		in = Size{msg.Width, msg.Height}
	case tea.KeyPressMsg:
		in = Key{msg.String(), msg.Text}
	case tea.PasteMsg:
		in = Key{"", msg.Content}
	case tea.ResumeMsg: // it was away: the next tick asks anew
		in = Size{a.model.width, a.model.height}
	}
	do := a.model.Update(in, time.Now())
	if do.Ask != nil {
		a.ask(do)
	}
	if do.Suspend {
		cmds = append(cmds, tea.Suspend)
	}
	if do.Quit {
		cmds = append(cmds, tea.Quit)
	}
	return a, tea.Batch(cmds...)
}

// ask asks the questions of a round, instead of those that are out. It is no command
// of Bubble Tea, as those are not waited for at the end.
func (a *app) ask(do Effect) {
	a.stop()
	ctx, stop := context.WithCancel(a.ctx)
	a.stop = stop
	a.asking.Go(func() {
		defer stop()
		for _, question := range do.Ask {
			ans, err := follow(ctx, a.queen.Ask, question.Verb, question.Req)
			if ctx.Err() != nil {
				return
			}
			a.program.Send(Answer{do.Round, question, ans, err})
			if ans == nil { // nobody is there: the others need not wait for that too
				break
			}
		}
		a.program.Send(Done{do.Round})
	})
}

// View renders the model.
func (a *app) View() tea.View {
	v := tea.NewView(strings.Join(a.model.Lines(time.Now()), "\n"))
	v.AltScreen = true
	return v
}
