package config

import (
	"fmt"
	"strconv"

	"onceupon/trainer/fault"
)

// Pick is a number that can be left to the program.
type Pick int

// What a Pick is besides a number.
const (
	Auto    Pick = -1 // measured for a teacher on a card, fixed on a processor
	Measure Pick = -2 // measured in either case
)

// ParsePick reads auto, measure or a number.
func ParsePick(text string) (Pick, error) {
	switch text {
	case "auto":
		return Auto, nil
	case "measure":
		return Measure, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, fault.New(fault.Usage, "%q must be auto, measure or a number", text)
	}
	return Pick(n), nil
}

// UnmarshalTOML reads a string or an integer.
func (p *Pick) UnmarshalTOML(value any) (err error) {
	*p, err = ParsePick(fmt.Sprint(value))
	return err
}

// MarshalTOML writes what UnmarshalTOML reads.
func (p Pick) MarshalTOML() ([]byte, error) {
	if p < 0 {
		return []byte(strconv.Quote(p.String())), nil
	}
	return []byte(p.String()), nil
}

func (p Pick) String() string {
	switch p {
	case Auto:
		return "auto"
	case Measure:
		return "measure"
	}
	return strconv.Itoa(int(p))
}
