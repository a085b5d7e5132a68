package pages_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
)

// A reader is a client with one connection, which it keeps. It knows no more of
// HTTP/1.1 than this server needs: net/http's own client would cost more than the
// server that is measured.
type reader struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte
	body []byte
}

func newReader(ctx context.Context, addr string) (*reader, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &reader{conn: conn, in: bufio.NewReader(conn)}, nil
}

// get returns the status and the body, which is valid until the next call.
func (r *reader) get(page int) (status int, body []byte, err error) {
	r.out = append(r.out[:0], "GET "+prefix+"Page_"...)
	r.out = strconv.AppendInt(r.out, int64(page), 10)
	r.out = append(r.out, " HTTP/1.1\r\nHost: en.wikipedia.org\r\nAccept: application/json\r\nAccept-Encoding: gzip\r\nUser-Agent: reader\r\n\r\n"...)
	if _, err := r.conn.Write(r.out); err != nil {
		return 0, nil, err
	}
	line, err := r.in.ReadSlice('\n')
	if err != nil {
		return 0, nil, err
	}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return 0, nil, fmt.Errorf("status line %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, nil, err
	}
	length := -1
	for {
		if line, err = r.in.ReadSlice('\n'); err != nil {
			return 0, nil, err
		}
		if line = bytes.TrimSpace(line); len(line) == 0 {
			break
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return 0, nil, err
			}
		}
	}
	if length < 0 {
		return 0, nil, errors.New("no Content-Length")
	}
	if cap(r.body) < length {
		r.body = make([]byte, 2*length)
	}
	r.body = r.body[:length]
	_, err = io.ReadFull(r.in, r.body)
	return status, r.body, err
}

// load lets so many readers make n requests together, for pages that are drawn by a
// Zipf law, and calls check with each answer. It returns the first error.
func load(ctx context.Context, addr string, readers, n int, check func(page, status int, body []byte) error) error {
	all := make([]*reader, readers)
	for i := range all {
		r, err := newReader(ctx, addr)
		if err != nil {
			return err
		}
		defer func() { _ = r.conn.Close() }()
		all[i] = r
	}
	var left atomic.Int64
	left.Store(int64(n))
	errs := make([]error, readers)
	var wg sync.WaitGroup
	for i, r := range all {
		wg.Go(func() {
			pages := rand.NewZipf(rand.New(rand.NewPCG(1, uint64(i))), 1.1, 1, pageCount-1)
			for left.Add(-1) >= 0 && errs[i] == nil {
				page := int(pages.Uint64())
				status, body, err := r.get(page)
				if err == nil {
					err = check(page, status, body)
				}
				errs[i] = err
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
