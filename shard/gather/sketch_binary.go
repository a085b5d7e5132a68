package gather

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// ErrBadSketch is returned by [Sketch.UnmarshalBinary] for bytes that
// [Sketch.MarshalBinary] does not write.
var ErrBadSketch = errors.New("gather: bad sketch")

// The first byte of a marshalled sketch is its version, which includes the number
// of registers.
const sketchVersion = 1

const denseSize = registers / 4 * 3 // four registers of 6 bits in three bytes

// MarshalBinary returns the sketch as bytes: a version, and then 3 bytes for each
// register in use while they are a list, up to 3 kB, or else 12 kB. Equal sets of
// values have equal bytes. The error is always nil.
func (s *Sketch) MarshalBinary() ([]byte, error) {
	if s.dense == nil {
		data := make([]byte, 1, 1+3*len(s.sparse))
		data[0] = sketchVersion
		for _, e := range s.sparse {
			data = append(data, byte(e>>16), byte(e>>8), byte(e))
		}
		return data, nil
	}
	data := make([]byte, 1, 1+denseSize)
	data[0] = sketchVersion
	for four := range slices.Chunk(s.dense, 4) {
		v := uint32(four[0])<<18 | uint32(four[1])<<12 | uint32(four[2])<<6 | uint32(four[3])
		data = append(data, byte(v>>16), byte(v>>8), byte(v))
	}
	return data, nil
}

// MarshalText returns the bytes of [Sketch.MarshalBinary] in base64, so that a sketch
// travels as JSON.
func (s *Sketch) MarshalText() ([]byte, error) {
	data, err := s.MarshalBinary()
	return base64.StdEncoding.AppendEncode(nil, data), err
}

// UnmarshalText is [Sketch.UnmarshalBinary] for what MarshalText writes.
func (s *Sketch) UnmarshalText(text []byte) error {
	data, err := base64.StdEncoding.Strict().AppendDecode(nil, text)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBadSketch, err)
	}
	return s.UnmarshalBinary(data)
}

// UnmarshalBinary replaces the sketch by that of the bytes, of which it keeps none. It
// accepts exactly what MarshalBinary writes; for all else it returns an error that
// wraps [ErrBadSketch] and leaves the sketch as it was.
func (s *Sketch) UnmarshalBinary(data []byte) error {
	if len(data) == 0 || data[0] != sketchVersion {
		return fmt.Errorf("%w: expected version %d first", ErrBadSketch, sketchVersion)
	}
	data = data[1:]
	if len(data) == denseSize {
		return s.unmarshalDense(data)
	}
	if len(data)%3 != 0 || len(data) > 3*mostSparse {
		return fmt.Errorf("%w: %d bytes, expected 3 for each register or %d in all", ErrBadSketch, len(data), denseSize)
	}
	sparse := make([]uint32, 0, len(data)/3)
	next := uint32(0) // the least register that may come
	for b := range slices.Chunk(data, 3) {
		e := uint32(binary.BigEndian.Uint16(b))<<8 | uint32(b[2])
		register, rank := e>>8, uint8(e)
		if register < next || register >= registers || rank < 1 || rank > mostRank {
			return fmt.Errorf("%w: register %d has rank %d, expected ascending ones below %d of rank 1 to %d", ErrBadSketch, register, rank, registers, mostRank)
		}
		next = register + 1
		sparse = append(sparse, e)
	}
	s.sparse, s.dense = sparse, nil
	return nil
}

func (s *Sketch) unmarshalDense(data []byte) error {
	dense := make([]uint8, 0, registers)
	used := 0
	for b := range slices.Chunk(data, 3) {
		v := uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2])
		for shift := 18; shift >= 0; shift -= 6 {
			rank := uint8(v >> shift & 63)
			if rank > mostRank {
				return fmt.Errorf("%w: register %d has rank %d, expected up to %d", ErrBadSketch, len(dense), rank, mostRank)
			}
			if rank > 0 {
				used++
			}
			dense = append(dense, rank)
		}
	}
	if used <= mostSparse {
		return fmt.Errorf("%w: %d registers in use, expected a list for so few", ErrBadSketch, used)
	}
	s.sparse, s.dense = nil, dense
	return nil
}
