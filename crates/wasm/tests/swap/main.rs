//! What a process of its own is needed for: versions of a module swapped under load, with an eye on the memory.

#[cfg(test)]
mod under_load;
