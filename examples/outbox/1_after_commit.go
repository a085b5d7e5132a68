package main

import "context"

// afterCommit commits, and then sends.
type afterCommit struct {
	idle
	*shop
	unsent map[int]event // committed, by request: in memory only
}

func (*afterCommit) name() string { return "send after the commit" }
func (*afterCommit) lesson() string {
	return "A crash between the two, and nobody knows that there was something to send. Of two that commit, either may send first."
}

func (w *afterCommit) open(_ context.Context, s *shop) error {
	w.shop = s
	w.restart()
	return nil
}

func (w *afterCommit) commit(ctx context.Context, r request, crash bool) error {
	e, err := w.change(ctx, r, nil)
	if err != nil || r.rollsBack || crash {
		return err
	}
	w.unsent[r.number] = e
	return nil
}

func (w *afterCommit) send(r request) {
	w.broker.take(w.unsent[r.number])
	delete(w.unsent, r.number)
}

func (w *afterCommit) restart() { w.unsent = map[int]event{} }
