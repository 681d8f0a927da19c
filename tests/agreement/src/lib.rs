//! Holds infra/ and the code together; see tests/.
