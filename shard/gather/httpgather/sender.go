package httpgather

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// sender gathers the records of one response and flushes them.
type sender[T any] struct {
	// Immutable.
	w         http.ResponseWriter
	flusher   *http.ResponseController
	mediaType string
	o         Options[T]
	cancel    context.CancelCauseFunc // ends the query

	// Of the goroutine of the handler.
	row     bytes.Buffer // the row being encoded
	encoder *json.Encoder

	ticks sync.WaitGroup // the timer, from when it is set until it has run or was stopped

	mu         sync.Mutex // also guards w
	begun      bool       // the header is written
	buf        bytes.Buffer
	opened     bool // the array is, in buf or before
	rows       int64
	last       T      // row
	unsent     bool   // there are rows in buf
	checkpoint string // the last one
	timer      *time.Timer
	ticking    bool  // the timer will run
	err        error // of writing, after which nothing is written, or of Options.Cursor
	broken     bool  // err is of writing
	panicked   any   // what the timer's goroutine panicked with
}

func newSender[T any](w http.ResponseWriter, mediaType string, o Options[T], cancel context.CancelCauseFunc) *sender[T] {
	o.FlushBytes = cmp.Or(o.FlushBytes, 8192)
	o.FlushEvery = cmp.Or(o.FlushEvery, 50*time.Millisecond)
	s := &sender[T]{w: w, flusher: http.NewResponseController(w), mediaType: mediaType, o: o, cancel: cancel}
	s.encoder = json.NewEncoder(&s.row) // which writes each value on a line of its own
	return s
}

// begin writes the header.
func (s *sender[T]) begin() {
	h := s.w.Header()
	h.Del("Content-Length")
	h.Set("Content-Type", s.mediaType)
	if h.Get("X-Accel-Buffering") == "" {
		h.Set("X-Accel-Buffering", "no") // nginx would gather the rows again
	}
	s.w.WriteHeader(http.StatusOK)
	s.begun = true
}

// send takes one row and flushes what there is if it is time.
func (s *sender[T]) send(row T) error {
	s.row.Reset()
	if err := s.encoder.Encode(row); err != nil {
		return fmt.Errorf("httpgather: row %d: %w", s.rows, err)
	}
	if isControl(s.row.Bytes()) {
		return fmt.Errorf("%w: row %d", ErrReservedKey, s.rows)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	s.append(bytes.TrimSuffix(s.row.Bytes(), []byte{'\n'}), false)
	s.rows++
	s.last, s.unsent = row, true
	if s.rows == 1 || s.buf.Len() >= s.o.FlushBytes {
		s.flushRows()
		return s.err
	}
	s.tickLater()
	return nil
}

// append adds a record to buf, with what separates it from the next: the reader need
// not wait for that.
func (s *sender[T]) append(record []byte, last bool) {
	if s.mediaType != jsonType {
		s.buf.Write(record)
		s.buf.WriteByte('\n')
		return
	}
	if !s.opened {
		s.opened = true
		s.buf.WriteString("[\n")
	}
	s.buf.Write(record)
	if last {
		s.buf.WriteString("\n]")
	} else {
		s.buf.WriteString(",\n")
	}
}

func (s *sender[T]) appendControl(c control) {
	record, err := json.Marshal(c)
	if err != nil {
		panic(err) // numbers and text
	}
	s.append(record, c.Cursor == nil)
}

// flushRows writes the rows in buf, with a checkpoint after them.
func (s *sender[T]) flushRows() {
	if s.o.Cursor != nil {
		if !s.advance() {
			return
		}
		s.appendControl(control{Cursor: &s.checkpoint})
	}
	s.flush()
}

// advance moves the checkpoint to the last row. If that fails, the rows after the old
// one are dropped: a client could not tell where to resume.
func (s *sender[T]) advance() bool {
	checkpoint, err := s.o.Cursor(s.last)
	if err == nil && checkpoint == "" {
		err = errors.New("it is empty, which is the start")
	}
	if err != nil {
		s.err = fmt.Errorf("httpgather: cursor after row %d: %w", s.rows-1, err)
		s.buf.Reset()
		s.unsent = false
		return false
	}
	s.checkpoint = checkpoint
	return true
}

// flush writes buf to the client.
func (s *sender[T]) flush() {
	if !s.begun {
		s.begin()
	}
	_, err := s.w.Write(s.buf.Bytes())
	if err == nil {
		if err = s.flusher.Flush(); errors.Is(err, http.ErrNotSupported) {
			err = nil // the rows arrive when the response ends
		}
	}
	s.buf.Reset()
	s.unsent = false
	if err != nil {
		s.err, s.broken = fmt.Errorf("httpgather: write: %w", err), true
	}
}

// tickLater has the timer run within FlushEvery.
func (s *sender[T]) tickLater() {
	if s.ticking {
		return
	}
	s.ticking = true
	s.ticks.Add(1)
	if s.timer == nil {
		s.timer = time.AfterFunc(s.o.FlushEvery, s.tick)
	} else {
		s.timer.Reset(s.o.FlushEvery)
	}
}

// tick flushes the rows that have waited. It runs on a goroutine of its own, so what
// fails here ends the query, and a panic is kept for the handler's.
func (s *sender[T]) tick() {
	defer s.ticks.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ticking = false
	if s.err != nil || !s.unsent {
		return
	}
	defer func() {
		if value := recover(); value != nil {
			s.panicked = value
			s.err, s.broken = errors.New("httpgather: panic in a flush"), true
		}
		if s.err != nil {
			s.cancel(s.err)
		}
	}()
	s.flushRows()
}

// close stops the timer, or waits until it has run. It may be called again. No row comes
// after it.
func (s *sender[T]) close() {
	s.mu.Lock()
	timer := s.timer
	s.mu.Unlock()
	if timer != nil && timer.Stop() {
		s.ticks.Done()
	}
	s.ticks.Wait()
}

// finish sends the last record, or a problem if nothing was sent, and returns what
// failed. The timer runs no more.
func (s *sender[T]) finish(err error) error {
	if s.err != nil {
		err = s.err
	}
	if s.broken {
		return err
	}
	if err == nil {
		s.end()
		return s.err
	}
	p := public(err, s.o.Public)
	if !s.begun {
		if write := writeProblem(s.w, p); write != nil {
			return errors.Join(err, fmt.Errorf("httpgather: write: %w", write))
		}
		return err
	}
	if s.unsent && s.o.Cursor != nil && s.err == nil && !s.advance() {
		err = errors.Join(err, s.err)
	}
	s.appendControl(control{Error: &errorRecord{Message: p.Detail, Missing: p.Missing, Resume: s.checkpoint}})
	s.flush()
	return err
}

func (s *sender[T]) end() {
	end := &endRecord{Rows: s.rows}
	if s.o.Next != nil {
		end.Next = s.o.Next()
	}
	s.appendControl(control{End: end})
	s.flush()
}
