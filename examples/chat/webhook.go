package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/outbox"
)

// Webhooks sends messages to the receiver: from the outboxes, or once and without
// a net when the outbox switch is off.
type Webhooks struct {
	url    string
	client *http.Client

	delivered atomic.Int64 // acknowledged by the receiver
	failed    atomic.Int64 // attempts that failed
	first     atomic.Int64 // of those, the first attempts of a message of the outbox
	lost      atomic.Int64 // of those, the ones that nobody tries again

	once sync.WaitGroup // sends that no outbox remembers
}

// NewWebhooks returns a sender to url.
func NewWebhooks(url string) *Webhooks {
	return &Webhooks{url: url, client: &http.Client{
		Timeout:       2 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // or the POST becomes a GET
	}}
}

// Run delivers from every outbox of the store until ctx ends.
//
// An outbox hands over the messages of one channel in their order and holds back
// what follows a failure, so that a receiver sees each conversation as it was.
func (w *Webhooks) Run(ctx context.Context, s *Store) error {
	publish := outbox.PublisherFunc(func(ctx context.Context, m outbox.Message) error {
		err := w.send(ctx, m.Payload)
		if err != nil && m.Attempt == 1 {
			w.first.Add(1)
		}
		return err
	})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error)
	for _, n := range s.nodes {
		go func() { ended <- n.outbox.Run(ctx, n.db, publish) }()
	}
	var errs []error
	for range s.nodes {
		if err := <-ended; err != nil { // at the start only: the end of ctx is none
			errs = append(errs, err)
			cancel()
		}
	}
	return errors.Join(errs...)
}

// SendOnce sends in the background, and that is all: a message that fails is lost,
// as is one on its way when the process dies.
func (w *Webhooks) SendOnce(m Message) {
	w.once.Go(func() {
		payload, err := json.Marshal(m)
		if err == nil {
			err = w.send(context.Background(), payload)
		}
		if err != nil {
			w.lost.Add(1)
		}
	})
}

// Wait returns when no SendOnce is on its way.
func (w *Webhooks) Wait() { w.once.Wait() }

func (w *Webhooks) send(ctx context.Context, payload []byte) (err error) {
	defer func() {
		if err != nil {
			w.failed.Add(1)
		} else {
			w.delivered.Add(1)
		}
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, bytes.NewReader(payload))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := w.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection can be used again
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("webhook: %s", resp.Status)
	}
	return nil
}

// Receiver is the built-in receiver of the webhooks: a server of its own that
// refuses one delivery in five.
type Receiver struct {
	server *http.Server
	url    string

	mu       sync.Mutex
	rng      *rand.Rand
	newest   map[string]int64 // by channel
	repeated int64            // deliveries that the receiver knew, or that came after a newer one
}

// StartReceiver listens on a free port of the loopback interface.
func StartReceiver(seed uint64) (*Receiver, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Receiver{url: "http://" + l.Addr().String(), rng: rand.New(rand.NewPCG(seed, 2)), newest: make(map[string]int64)}
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: 5 * time.Second}
	go r.server.Serve(l)
	return r, nil
}

// Close ends the server.
func (r *Receiver) Close() error { return r.server.Close() }

// Repeated returns how many deliveries were not news.
func (r *Receiver) Repeated() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.repeated
}

func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	var m Message
	if err := json.NewDecoder(io.LimitReader(req.Body, 1<<20)).Decode(&m); err != nil || strings.TrimSpace(m.Channel) == "" {
		http.Error(w, "not a message", http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rng.IntN(5) == 0 {
		http.Error(w, "try again", http.StatusServiceUnavailable)
		return
	}
	if m.ID <= r.newest[m.Channel] {
		r.repeated++
	} else {
		r.newest[m.Channel] = m.ID
	}
	w.WriteHeader(http.StatusNoContent)
}
