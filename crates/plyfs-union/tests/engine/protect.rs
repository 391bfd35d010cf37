//! The immutable and append-only flags: kept in a mark, enforced by the engine.
use crate::check::check;

#[test]
fn nothing_of_an_immutable_file_changes() {
    check(
        "lower: /f=1 /d/x=1 | upper: /u=1",
        "chattr +i /f; chattr +i /u; lsattr /f=i; \
         put /f 0 x !EPERM; trunc /f 0 !EPERM; alloc /f 0 9 !EPERM; copy /d/x /f 1 !EPERM; chmod 600 /f !EPERM; \
         chown 5:5 /f !EPERM; touch /f 9 !EPERM; setx /f user.k v !EPERM; rmx /f user.k !EPERM; ln /f /g !EPERM; \
         rm /f !EPERM; mv /f /g !EPERM; mv /d/x /f !EPERM; xchg /d/x /f !EPERM; rm /u !EPERM; put /u 0 x !EPERM; \
         reopen; rm /f !EPERM; put /u 0 x !EPERM; lsattr /u=i; cat /f=1; \
         chattr -i /f; chattr -i /u; put /f 0 x; rm /u",
        "tree: /f=x /d/x=1 | upper: /f=x",
    );
}

#[test]
fn an_append_only_file_grows_and_does_nothing_else() {
    check(
        "lower: /f=ab | upper:",
        "chattr +a /f; lsattr /f=a; append /f cd; put /f 1 x !EPERM; trunc /f 0 !EPERM; trunc /f 9 !EPERM; \
         punch /f 0 1 !EPERM; rm /f !EPERM; ln /f /g !EPERM; chmod 600 /f !EPERM; \
         reopen; alloc /f 0 4; put /f 4 e",
        "tree: /f=abcde",
    );
}

#[test]
fn protected_directories_keep_their_names() {
    check(
        "lower: /i/f=1 /i/d /a/f=1 /a/e /o=1 | upper:",
        "chattr +i /i; chattr +a /a; \
         create /i/n !EPERM; mkdir /i/n !EPERM; ln /o /i/n !EPERM; mv /o /i/n !EPERM; rm /i/f !EPERM; rmdir /i/d !EPERM; \
         mv /i/f /n !EPERM; mv /i /n !EPERM; rmdir /a/e !EPERM; rm /a/f !EPERM; mv /a/f /a/g !EPERM; mv /o /a/f !EPERM; \
         create /a/n; mv /o /a/o; put /i/f 0 x; chmod 700 /i/d; put /a/f 0 y",
        "tree: /i/f=x /i/d mode=700 /a/f=y /a/e /a/n= /a/o=1",
    );
}

#[test]
fn flags_of_a_lower_hold_and_are_copied_into_the_mark() {
    check(
        "lower: /f=1 flags=i /a=1 flags=a /d/x=1 /d flags=i /s=1 flags=S | upper:",
        "rm /f !EPERM; put /f 0 x !EPERM; chmod 600 /a !EPERM; append /a b; create /d/n !EPERM; \
         put /d/x 0 z; chmod 600 /s; lsattr /s=S; lsattr /d=i; lsattr /a=a",
        "tree: /f=1 /a=1b /d/x=z /s=1 mode=600",
    );
}
