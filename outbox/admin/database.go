package admin

import (
	"bytes"
	"context"
	"database/sql"
	"time"
	"unicode/utf8"

	"github.com/evenkeel-go/evenkeel/outbox"
)

// A database is a source that is really there.
type database struct {
	box *outbox.Outbox
	db  *sql.DB
}

func (d database) Stats(ctx context.Context) (outbox.Stats, error) { return d.box.Stats(ctx, d.db) }

func (d database) Dead(ctx context.Context, after int64, limit, size int) (letters []letter, more bool, err error) {
	for m, err := range d.box.DeadAfter(ctx, d.db, after) {
		switch {
		case err != nil:
			return nil, false, err
		case len(letters) == limit:
			return letters, true, nil
		}
		letters = append(letters, letterOf(m, size))
	}
	return letters, false, nil
}

func (d database) Replay(ctx context.Context, ids []int64) (int64, error) {
	return d.box.Replay(ctx, d.db, ids...)
}

func (d database) Purge(ctx context.Context, before time.Time) (int64, error) {
	return d.box.Purge(ctx, d.db, before)
}

func (d database) Pause(ctx context.Context, topic string) error {
	return d.box.Pause(ctx, d.db, topic)
}

func (d database) Resume(ctx context.Context, topic string) error {
	return d.box.Resume(ctx, d.db, topic)
}

// A letter is a dead message, as it is shown. Payload is the beginning of one of
// Size bytes.
type letter struct {
	ID        int64             `json:"id"`
	Topic     string            `json:"topic"`
	Key       string            `json:"key"`
	Type      string            `json:"type"`
	Header    map[string]string `json:"header,omitempty"`
	CreatedAt time.Time         `json:"created_at"`
	DeliverAt time.Time         `json:"deliver_at,omitzero"`
	Attempts  int               `json:"attempts"`
	LastError string            `json:"last_error"`
	Size      int               `json:"payload_size"`
	Cut       bool              `json:"payload_cut"`
	Payload   []byte            `json:"payload"`
	// Text is the same if the whole payload is UTF-8, and ends between two
	// characters.
	Text *string `json:"payload_text,omitempty"`
}

// letterOf keeps nothing of the payload but the first size bytes.
func letterOf(m outbox.Message, size int) letter {
	l := letter{
		ID: m.ID, Topic: m.Topic, Key: m.Key, Type: m.Type, Header: m.Header, CreatedAt: m.CreatedAt, DeliverAt: m.DeliverAt,
		Attempts: m.Attempt, LastError: m.LastError,
		Size: len(m.Payload), Cut: len(m.Payload) > size,
		Payload: bytes.Clone(m.Payload[:min(size, len(m.Payload))]),
	}
	if l.Payload == nil {
		l.Payload = []byte{}
	}
	if utf8.Valid(m.Payload) {
		text := l.Payload
		for !utf8.Valid(text) { // at most three times
			text = text[:len(text)-1]
		}
		s := string(text)
		l.Text = &s
	}
	return l
}
