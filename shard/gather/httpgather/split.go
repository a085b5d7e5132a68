package httpgather

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// splitter cuts a body into records. Next returns each, without what separates them and
// valid until the next call, and exactly io.EOF after the last of a body that is
// complete; one that ends elsewhere is ErrTorn.
type splitter interface {
	next() ([]byte, error)
}

// tornBy wraps what ended a body too early.
func tornBy(err error) error {
	if err == io.EOF { // and no error that wraps it
		return fmt.Errorf("%w: it ends inside a record", ErrTorn)
	}
	return fmt.Errorf("%w: %w", ErrTorn, err)
}

func tooLarge(most int) error {
	return fmt.Errorf("%w: a record of more than %d bytes", ErrTooLarge, most)
}

// lines splits NDJSON: a record is a line, and the last has its line feed too.
type lines struct {
	r      *bufio.Reader
	most   int
	record []byte
}

func newLines(body io.Reader, most int) *lines { return &lines{r: bufio.NewReader(body), most: most} }

func (l *lines) next() ([]byte, error) {
	for {
		line, err := l.line()
		if err != nil {
			return nil, err
		}
		if record := bytes.TrimSpace(line); len(record) > 0 {
			return record, nil
		}
	}
}

// line reads up to and with a line feed.
func (l *lines) line() ([]byte, error) {
	l.record = l.record[:0]
	for {
		part, err := l.r.ReadSlice('\n')
		l.record = append(l.record, part...)
		switch {
		case len(l.record)-1 > l.most: // the line feed is not counted
			return nil, tooLarge(l.most)
		case err == nil:
			return l.record, nil
		case errors.Is(err, bufio.ErrBufferFull):
		case err == io.EOF && len(bytes.TrimSpace(l.record)) == 0:
			return nil, io.EOF
		default:
			return nil, tornBy(err)
		}
	}
}

// array splits a JSON array into its elements. It finds where they end, and leaves
// it to the JSON decoder to find what is wrong inside.
type array struct {
	r      *bufio.Reader
	most   int
	record []byte
	state  arrayState
}

type arrayState uint8

const (
	beforeArray arrayState = iota
	beforeFirst            // element, or ]
	beforeNext             // element, after a comma
	afterArray
)

func newArray(body io.Reader, most int) *array { return &array{r: bufio.NewReader(body), most: most} }

func (a *array) next() ([]byte, error) {
	if a.state == beforeArray {
		b, err := a.nonSpace()
		if err != nil {
			return nil, tornBy(err)
		}
		if b != '[' {
			return nil, fmt.Errorf("%w: it begins with %q, expected an array", ErrBadStream, b)
		}
		a.state = beforeFirst
	}
	if a.state == afterArray {
		return nil, a.rest()
	}
	b, err := a.nonSpace()
	if err != nil {
		return nil, tornBy(err)
	}
	if b == ']' && a.state == beforeFirst {
		a.state = afterArray
		return nil, a.rest()
	}
	return a.element(b)
}

// rest verifies that nothing follows the array.
func (a *array) rest() error {
	b, err := a.nonSpace()
	switch {
	case err == nil:
		return fmt.Errorf("%w: %q after the array", ErrBadStream, b)
	case err == io.EOF:
		return io.EOF
	}
	return tornBy(err)
}

func (a *array) nonSpace() (byte, error) {
	for {
		b, err := a.r.ReadByte()
		if err != nil || b != ' ' && b != '\t' && b != '\r' && b != '\n' {
			return b, err
		}
	}
}

// element reads an element, of which b is the first byte, and the comma or bracket
// after it.
func (a *array) element(b byte) ([]byte, error) {
	a.record = a.record[:0]
	depth, inString, escaped := 0, false, false
	for {
		switch {
		case escaped:
			escaped = false
		case inString:
			escaped, inString = b == '\\', b != '"'
		case depth == 0 && (b == ',' || b == ']'):
			if a.state = beforeNext; b == ']' {
				a.state = afterArray
			}
			return a.record, nil
		case b == '"':
			inString = true
		case b == '{' || b == '[':
			depth++
		case b == '}' || b == ']':
			depth--
		}
		if len(a.record) == a.most {
			return nil, tooLarge(a.most)
		}
		a.record = append(a.record, b)
		var err error
		if b, err = a.r.ReadByte(); err != nil {
			return nil, tornBy(err)
		}
	}
}
