package student

/*
#include "student.h"
int32_t studentStoryEnded(uintptr_t user, int32_t story);
*/
import "C"

import "runtime/cgo"

// listener is told by student_generate which stories have ended.
type listener struct {
	ended func(story int) error
	err   error // why it stopped the telling
}

// attach puts the listener into the options of a call; delete the handle after
// it.
func (l *listener) attach(o *C.student_generate_options) cgo.Handle {
	h := cgo.NewHandle(l)
	o.ended, o.user = (*[0]byte)(C.studentStoryEnded), C.uintptr_t(h)
	return h
}

//export studentStoryEnded
func studentStoryEnded(user C.uintptr_t, story C.int32_t) C.int32_t {
	l := cgo.Handle(user).Value().(*listener)
	if l.err = l.ended(int(story)); l.err != nil {
		return 1
	}
	return 0
}
