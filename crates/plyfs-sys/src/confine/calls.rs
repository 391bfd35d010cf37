//! Which system calls a process still makes: a list, enforced by the kernel (seccomp).
//!
//! Calls without conditions cost next to nothing: the kernel knows from a table that they are
//! allowed. Those with conditions run the filter.
use crate::error::{Errno, Result, SysError};

mod list;

/// What becomes of a call that is not on the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// It answers ENOSYS, as on a kernel that has no such call.
    Fails,
    /// It ends the process by SIGSYS.
    Kills,
}

/// Lets this thread, and what it starts, make only calls on the list from now on. Answers how many
/// there are. Needs [`super::no_new_privileges`].
///
/// # Errors
/// ENOSYS where the processor is not known here or the kernel has no filters.
pub fn allow_only_listed(denied: Denied) -> Result<usize> {
    let Some(processor) = PROCESSOR else {
        return Err(SysError::new("seccomp", Errno::ENOSYS));
    };
    let (mut program, listed) = program(processor, denied);
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| SysError::new("seccomp", Errno::E2BIG))?,
        filter: program.as_mut_ptr(),
    };
    // No speculation is made slower for it, which before Linux 5.16 was the default. Nothing is
    // logged by the kernel, as that would be a line for each new thread (clone3).
    let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // SAFETY: the kernel reads the program, which outlives the call.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    Errno::result(rc)
        .map(|_| listed)
        .map_err(|e| SysError::new("seccomp", e))
}

/// AUDIT_ARCH_* of linux/audit.h.
const PROCESSOR: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xC000_003E)
} else if cfg!(target_arch = "aarch64") {
    Some(0xC000_00B7)
} else {
    None
};

type Instruction = libc::sock_filter;

/// Offsets in struct seccomp_data.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
/// The lower half of an argument, on a little-endian processor, which all known ones are.
const fn argument(n: u32) -> u32 {
    16 + 8 * n
}

const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

const fn load(offset: u32) -> Instruction {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

const fn mask(bits: u32) -> Instruction {
    instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, bits)
}

/// Skips so many instructions unless what was loaded is `value`.
const fn unless(value: u32, skip: u8) -> Instruction {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, skip, value)
}

const fn answer(action: u32) -> Instruction {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, action)
}

/// A condition on one argument: what is left of it under the mask is one of the values.
struct Condition {
    argument: u32,
    mask: u32,
    values: Vec<u32>,
}

fn program(processor: u32, denied: Denied) -> (Vec<Instruction>, usize) {
    const ALLOW: Instruction = answer(libc::SECCOMP_RET_ALLOW);
    let deny = answer(match denied {
        Denied::Fails => libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned(),
        Denied::Kills => libc::SECCOMP_RET_KILL_PROCESS,
    });
    let mut program = vec![
        load(ARCH),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, 0, processor),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
        load(NUMBER),
    ];
    // No call at all: what a tracer puts in place of one that it answers itself.
    program.extend([unless(u32::MAX, 1), ALLOW]);
    for call in list::ALWAYS {
        program.extend([unless(number(*call), 1), ALLOW]);
    }
    // Libraries try clone3 first, whose flags no filter can read, and then clone.
    let absent = answer(libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned());
    for call in list::ABSENT {
        program.extend([unless(number(*call), 1), absent]);
    }
    let conditional = list::conditional();
    let listed = list::ALWAYS.len() + conditional.len();
    for (call, condition) in conditional {
        let mut block = vec![load(argument(condition.argument)), mask(condition.mask)];
        for value in condition.values {
            block.extend([unless(value, 1), ALLOW]);
        }
        block.push(deny);
        program.push(unless(number(call), u8::try_from(block.len()).unwrap_or(0)));
        program.extend(block);
    }
    program.push(deny);
    (program, listed)
}

fn number(call: libc::c_long) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
