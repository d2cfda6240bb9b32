//! A database in trouble: requests go on, and never with a wrong octet.
