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

// Terminal is the terminal that Run uses.
type Terminal struct {
	In  io.Reader
	Out io.Writer
	// Width and Height are the size if Out cannot report it. Zero: Out is asked.
	Width, Height int
	// Take receives the function that restores the terminal, for a caller that must exit at
	// once. It may be nil.
	Take func(restore func())
}

// Queen is the source of answers and events.
type Queen struct {
	// Ask sends questions to one queen while it answers, so that the screen shows one view.
	Ask Ask
	// Events waits for an event or the end of ctx. It returns the events since the last
	// call, and the number dropped so far.
	Events func(ctx context.Context) (events []hivebeat.Event, dropped int)
}

// Run shows m until the user quits or ctx ends, and restores the terminal.
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
	beside.Go(func() { // a signal quits in order
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
	beside.Go(func() { // not a tick of Bubble Tea: those outlive the program
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

// app connects the model to the clock, the terminal and the queen.
type app struct {
	model   *Model
	queen   Queen
	program *tea.Program
	ctx     context.Context //nolint:containedctx // that of Run: bubbletea hands none on
	stop    func()          // cancels the current round
	asking  sync.WaitGroup
}

// Init does nothing: the first tick comes at once.
func (a *app) Init() tea.Cmd { return nil }

// Update passes messages to the model and carries out the effects.
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
	case tea.ResumeMsg: // back from the shell: the next tick asks again
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

// ask runs a round of questions, in place of the current one. It is not a command of Bubble
// Tea, because Bubble Tea does not wait for those at the end.
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
			if ans == nil { // no queen: the other questions would wait for their timeouts too
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
