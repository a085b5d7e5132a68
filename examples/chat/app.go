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
	replicas []*Replica
	reader   *Reader
	webhooks *Webhooks
	api      *API
	metrics  *Metrics
	traffic  *Load // nil without one
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
		m.traffic = &Load{URL: m.URL(), Rate: m.Config.Load, Seed: m.Config.Seed}
		m.load.start(m.traffic.Run, m.failed)
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
	m.webhooks = NewWebhooks(url)

	for _, name := range []string{"replica-1", "replica-2", "replica-3"} {
		r, err := OpenReplica(m.store, name)
		if err != nil {
			return err
		}
		m.replicas = append(m.replicas, r)
	}
	if m.reader, err = NewReader(m.store, m.replicas, m.switches); err != nil {
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
		Handler:      http.NewCrossOriginProtection().Handler(mux),
		ReadTimeout:  5 * time.Second,
		WriteTimeout: 10 * time.Second, // the stream of the page renews its own
		IdleTimeout:  time.Minute,
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
	m.replicas[len(m.replicas)-1].SetDelay(delay)
}

// URL is where the service listens.
func (m *Main) URL() string { return "http://" + m.listener.Addr().String() }

// Dir is the folder of the data.
func (m *Main) Dir() string { return m.dir }

// Failed yields the error of a part of the service that failed. The service should
// then be closed.
func (m *Main) Failed() <-chan error { return m.failed }

const (
	finishFor = 10 * time.Second // how long Close waits for requests that are under way
	drainFor  = 3 * time.Second  // and then for the outbox to empty; what is left stays in the files, for the next start
)

// Close ends the service: no new requests, those under way finish, the outbox
// drains or stays, the files close. A temporary folder is removed. It takes half a
// minute at most, when nothing answers any more.
func (m *Main) Close() error {
	m.load.stop()
	m.sampling.stop() // ends the streams of the page, which would keep Shutdown waiting
	ctx, cancel := context.WithTimeout(context.Background(), finishFor)
	defer cancel()
	var errs []error
	if err := m.server.Shutdown(ctx); err != nil {
		errs = append(errs, fmt.Errorf("shut down: %w", err), m.server.Close())
	}
	m.serving.stop()
	m.webhooks.Wait()
	m.drain()
	m.delivery.stop()
	errs = append(errs, m.metrics.last(), m.closeFiles())
	return errors.Join(errs...)
}

// drain waits until nothing is left in the outbox.
func (m *Main) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), drainFor)
	defer cancel()
	for {
		if n, err := m.store.Waiting(ctx); n == 0 && err == nil {
			return
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
}

func (m *Main) closeFiles() error {
	var errs []error
	if m.listener != nil {
		_ = m.listener.Close() // the server has closed it, if there was one
	}
	if m.receiver != nil {
		errs = append(errs, m.receiver.Close())
	}
	for _, r := range m.replicas {
		errs = append(errs, r.Close())
	}
	if m.store != nil {
		errs = append(errs, m.store.Close())
	}
	if m.tempDir {
		errs = append(errs, os.RemoveAll(m.dir))
	}
	return errors.Join(errs...)
}
