package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"
)

// Main is the whole service. Set Config, then Run; if that succeeds, Close in the
// end.
type Main struct {
	Config Config
	log    *slog.Logger

	dir      string
	tempDir  bool
	store    *Store
	switches *Switches
	receiver *Receiver
	reader   *Reader
	webhooks *Webhooks
	api      *API
	metrics  *Metrics
	listener net.Listener
	server   *http.Server

	// Background work in the order in which Close ends it.
	load, sampling, serving, delivery task
	failed                            chan error // the first failure of any
}

// task is a piece of background work that one owner starts and ends.
type task struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// start runs f until its context ends.
func (t *task) start(f func(context.Context) error, failed chan<- error) {
	ctx, cancel := context.WithCancel(context.Background())
	t.cancel, t.done = cancel, make(chan struct{})
	go func() {
		defer close(t.done)
		if err := f(ctx); err != nil {
			select {
			case failed <- err:
			default:
			}
		}
	}()
}

// stop ends the work and waits for it.
func (t *task) stop() {
	if t.cancel != nil {
		t.cancel()
		<-t.done
	}
}

// Run opens everything and returns when the service answers requests. On an error
// it has closed what it opened.
func (m *Main) Run(ctx context.Context) (err error) {
	m.failed = make(chan error, 1)
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.closeFiles())
		}
	}()
	if m.listener, err = net.Listen("tcp", m.Config.Addr); err != nil {
		return err
	}
	if err := m.openStore(ctx); err != nil {
		return err
	}
	if err := m.wire(); err != nil {
		return err
	}
	m.serving.start(func(context.Context) error {
		if err := m.server.Serve(m.listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}, m.failed)
	m.delivery.start(func(ctx context.Context) error { return m.webhooks.Run(ctx, m.store) }, m.failed)
	m.sampling.start(m.metrics.Run, m.failed)
	if m.Config.Load > 0 {
		load := &Load{URL: m.URL(), Rate: m.Config.Load, Seed: m.Config.Seed}
		m.load.start(load.Run, m.failed)
	}
	return nil
}

func (m *Main) openStore(ctx context.Context) (err error) {
	if m.dir = m.Config.Dir; m.dir == "" {
		if m.dir, err = os.MkdirTemp("", "evenkeel-chat-"); err != nil {
			return err
		}
		m.tempDir = true
	}
	m.store, err = OpenStore(ctx, m.dir, m.Config.Shards)
	return err
}

// wire connects the parts.
func (m *Main) wire() (err error) {
	m.switches = NewSwitches()
	url := m.Config.Webhook
	if url == "" {
		if m.receiver, err = StartReceiver(m.Config.Seed); err != nil {
			return err
		}
		url = m.receiver.url
	}
	m.webhooks = NewWebhooks(url, m.log)

	var replicas []*Replica
	for _, name := range []string{"replica-1", "replica-2", "replica-3"} {
		r, err := OpenReplica(m.store, name)
		if err != nil {
			return err
		}
		replicas = append(replicas, r)
	}
	if m.reader, err = NewReader(m.store, replicas, m.switches); err != nil {
		return err
	}
	m.SetSlow(true)

	m.api = &API{store: m.store, reader: m.reader, webhooks: m.webhooks, switches: m.switches, limit: m.Config.Limit, log: m.log}
	m.metrics = &Metrics{app: m}
	mux := http.NewServeMux()
	if err := m.api.Register(mux); err != nil {
		return err
	}
	if err := registerPage(mux, m); err != nil {
		return err
	}
	m.server = &http.Server{
		Handler:           http.NewCrossOriginProtection().Handler(mux),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		IdleTimeout:       time.Minute,
	}
	return nil
}

// SetSlow makes the last replica slow, or as fast as the others.
func (m *Main) SetSlow(on bool) {
	m.switches.Slow.Store(on)
	delay := time.Duration(0)
	if on {
		delay = m.Config.Slow
	}
	m.reader.replicas[len(m.reader.replicas)-1].SetDelay(delay)
}

// URL is where the service listens.
func (m *Main) URL() string { return "http://" + m.listener.Addr().String() }

// Dir is the folder of the data.
func (m *Main) Dir() string { return m.dir }

// Failed yields the error of a part of the service that failed. The service should
// then be closed.
func (m *Main) Failed() <-chan error { return m.failed }

// drainFor is how long Close waits for the outbox to empty. What is left then stays
// in the files, for the next start.
const drainFor = 3 * time.Second

// Close ends the service: no new requests, those under way finish, the outbox
// drains or stays, the files close. A temporary folder is removed.
func (m *Main) Close() error {
	var errs []error
	m.load.stop()
	m.sampling.stop() // ends the streams of the page, which would keep Shutdown waiting
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := m.server.Shutdown(ctx); err != nil {
		errs = append(errs, fmt.Errorf("shut down: %w", err))
	}
	m.serving.stop()
	m.webhooks.Wait()
	m.drain(ctx)
	m.delivery.stop()
	m.metrics.last()
	errs = append(errs, m.closeFiles())
	return errors.Join(errs...)
}

// drain waits until nothing is left in the outbox.
func (m *Main) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, drainFor)
	defer cancel()
	for m.waiting(ctx) > 0 {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
}

// waiting is the number of webhooks in the outboxes.
func (m *Main) waiting(ctx context.Context) (n int64) {
	for _, node := range m.store.nodes {
		if stats, err := node.outbox.Stats(ctx, node.db); err == nil {
			n += stats.Ready + stats.Waiting
		}
	}
	return n
}

func (m *Main) closeFiles() error {
	var errs []error
	if m.listener != nil {
		_ = m.listener.Close() // the server has closed it, if there was one
	}
	if m.receiver != nil {
		errs = append(errs, m.receiver.Close())
	}
	if m.reader != nil {
		for _, r := range m.reader.replicas {
			errs = append(errs, r.Close())
		}
	}
	if m.store != nil {
		errs = append(errs, m.store.Close())
	}
	if m.tempDir {
		errs = append(errs, os.RemoveAll(m.dir))
	}
	return errors.Join(errs...)
}
