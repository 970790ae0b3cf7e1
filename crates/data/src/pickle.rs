//! Reads the pickles in which CIFAR-10 and CIFAR-100 come for Python: a dictionary of lists, numbers, strings and one array of
//! bytes, in any protocol from 2 to 5.
//!
//! Nothing is executed. A pickle is a program for a small machine; this one knows the instructions that such files have, and
//! takes the functions that make arrays for what they make. Any other function is an error, and so is a file that would take more
//! memory than a few times its own size.

use std::{borrow::Cow, collections::HashMap};

/// Most objects in a file; CIFAR-100 has about 200,000.
const MOST_OBJECTS: usize = 1_000_000;

/// Why a pickle cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PickleError {
    #[error("it ends too early")]
    Ends,
    #[error("it has the instruction {0:#04x}, which such files do not have")]
    Instruction(u8),
    #[error("it refers to {0}, which such files do not need; it was not executed")]
    Function(String),
    #[error("it has more objects than such a file needs")]
    TooLarge,
    #[error("its parts do not fit together")]
    Inconsistent,
    #[error("it has no {0}")]
    Missing(&'static str),
    #[error("its {0} are not what they should be")]
    Unexpected(&'static str),
}

/// A function or class that files refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Reconstruct,
    FromBuffer,
    Ndarray,
    Dtype,
    Encode,
}

/// An object; others are referred to by their indices.
#[derive(Clone, Debug)]
enum Object<'a> {
    /// None, and what is not needed.
    Nothing,
    Number(i64),
    Bytes(Cow<'a, [u8]>),
    Text(&'a str),
    List(Vec<usize>),
    Dictionary(Vec<[usize; 2]>),
    Function(Function),
    /// The type of bytes without a sign.
    ByteType,
    /// Shape, contents, and whether these have columns behind each other instead of rows.
    Array(Vec<usize>, usize, bool),
}

/// What a pickle contains.
pub(crate) struct Pickle<'a> {
    objects: Vec<Object<'a>>,
    root: usize,
}

impl<'a> Pickle<'a> {
    /// # Errors
    ///
    /// [`PickleError`], if the file is not one of CIFAR's kind.
    pub(crate) fn read(file: &'a [u8]) -> Result<Self, PickleError> {
        let mut machine = Machine { rest: file, budget: 2 * file.len(), ..Machine::default() };
        while machine.step()? {}
        let root = machine.pop()?;
        Ok(Self { objects: machine.objects, root })
    }

    fn entry(&self, key: &'static str) -> Result<&Object<'a>, PickleError> {
        let Object::Dictionary(entries) = &self.objects[self.root] else { return Err(PickleError::Missing(key)) };
        let is_it = |entry: &&[usize; 2]| match &self.objects[entry[0]] {
            Object::Bytes(bytes) => **bytes == *key.as_bytes(),
            Object::Text(text) => *text == key,
            _ => false,
        };
        entries.iter().find(is_it).map(|entry| &self.objects[entry[1]]).ok_or(PickleError::Missing(key))
    }

    /// The list of numbers from 0 to 255 under a key.
    pub(crate) fn numbers(&self, key: &'static str) -> Result<Vec<u8>, PickleError> {
        let Object::List(items) = self.entry(key)? else { return Err(PickleError::Unexpected(key)) };
        let number = |item: &usize| match self.objects[*item] {
            Object::Number(number) => u8::try_from(number).ok(),
            _ => None,
        };
        items.iter().map(number).collect::<Option<_>>().ok_or(PickleError::Unexpected(key))
    }

    /// Rows, columns and bytes, row by row, of the matrix under a key.
    pub(crate) fn matrix(&self, key: &'static str) -> Result<([usize; 2], Cow<'_, [u8]>), PickleError> {
        let unexpected = PickleError::Unexpected(key);
        let Object::Array(shape, contents, by_columns) = self.entry(key)? else { return Err(unexpected) };
        let (&[rows, columns], Object::Bytes(bytes)) = (&shape[..], &self.objects[*contents]) else {
            return Err(unexpected);
        };
        if rows.checked_mul(columns) != Some(bytes.len()) {
            return Err(unexpected);
        }
        if !by_columns {
            return Ok(([rows, columns], Cow::Borrowed(bytes)));
        }
        let by_rows = (0..rows).flat_map(|row| (0..columns).map(move |column| bytes[column * rows + row]));
        Ok(([rows, columns], Cow::Owned(by_rows.collect())))
    }
}

#[derive(Default)]
struct Machine<'a> {
    rest: &'a [u8],
    objects: Vec<Object<'a>>,
    stack: Vec<usize>,
    /// Heights of the stack at its marks.
    marks: Vec<usize>,
    memo: HashMap<u32, usize>,
    /// Bytes that may still be copied.
    budget: usize,
}

impl<'a> Machine<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], PickleError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(PickleError::Ends)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A number of that many bytes, the lowest first.
    fn number(&mut self, bytes: usize) -> Result<usize, PickleError> {
        let value = self.take(bytes)?.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        usize::try_from(value).map_err(|_| PickleError::Ends)
    }

    /// Text or bytes behind a length of that many bytes.
    fn block(&mut self, length_bytes: usize) -> Result<&'a [u8], PickleError> {
        let length = self.number(length_bytes)?;
        self.take(length)
    }

    fn text(bytes: &'a [u8]) -> Result<&'a str, PickleError> {
        std::str::from_utf8(bytes).map_err(|_| PickleError::Inconsistent)
    }

    fn line(&mut self) -> Result<&'a str, PickleError> {
        let end = self.rest.iter().position(|byte| *byte == b'\n').ok_or(PickleError::Ends)?;
        Self::text(&self.take(end + 1)?[..end])
    }

    fn push(&mut self, object: Object<'a>) -> Result<bool, PickleError> {
        if self.objects.len() >= MOST_OBJECTS {
            return Err(PickleError::TooLarge);
        }
        self.stack.push(self.objects.len());
        self.objects.push(object);
        Ok(true)
    }

    fn pop(&mut self) -> Result<usize, PickleError> {
        self.stack.pop().ok_or(PickleError::Inconsistent)
    }

    /// What is on the stack above the last mark.
    fn since_mark(&mut self) -> Result<Vec<usize>, PickleError> {
        let height = self.marks.pop().filter(|height| *height <= self.stack.len()).ok_or(PickleError::Inconsistent)?;
        Ok(self.stack.split_off(height))
    }

    fn top(&self) -> Result<usize, PickleError> {
        self.stack.last().copied().ok_or(PickleError::Inconsistent)
    }

    fn tuple(&mut self, length: usize) -> Result<bool, PickleError> {
        let height = self.stack.len().checked_sub(length).ok_or(PickleError::Inconsistent)?;
        let items = self.stack.split_off(height);
        self.push(Object::List(items))
    }

    fn remember(&mut self, key: usize) -> Result<bool, PickleError> {
        let key = u32::try_from(key).map_err(|_| PickleError::TooLarge)?;
        let top = self.top()?;
        if self.memo.len() >= MOST_OBJECTS {
            return Err(PickleError::TooLarge);
        }
        self.memo.insert(key, top);
        Ok(true)
    }

    fn recall(&mut self, key: usize) -> Result<bool, PickleError> {
        let found = u32::try_from(key).ok().and_then(|key| self.memo.get(&key)).ok_or(PickleError::Inconsistent)?;
        self.stack.push(*found);
        Ok(true)
    }

    /// Does the next instruction; false after the last one.
    fn step(&mut self) -> Result<bool, PickleError> {
        let instruction = self.take(1)?[0];
        match instruction {
            b'.' => Ok(false),
            0x80 => self.take(1).map(|_| true),
            // The length of a frame.
            0x95 => self.take(8).map(|_| true),
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(true)
            }
            b'N' => self.push(Object::Nothing),
            0x88 | 0x89 => self.push(Object::Number(i64::from(instruction == 0x88))),
            b'K' | b'M' => {
                let number = self.number(if instruction == b'K' { 1 } else { 2 })?;
                self.push(Object::Number(number as i64))
            }
            b'J' => {
                let number = self.number(4)? as u32;
                self.push(Object::Number(i64::from(number as i32)))
            }
            b'U' | b'C' => self.block(1).and_then(|bytes| self.push(Object::Bytes(bytes.into()))),
            b'T' | b'B' => self.block(4).and_then(|bytes| self.push(Object::Bytes(bytes.into()))),
            0x8E | 0x96 => self.block(8).and_then(|bytes| self.push(Object::Bytes(bytes.into()))),
            0x8C => self.block(1).and_then(Self::text).and_then(|text| self.push(Object::Text(text))),
            b'X' => self.block(4).and_then(Self::text).and_then(|text| self.push(Object::Text(text))),
            b'q' => self.number(1).and_then(|key| self.remember(key)),
            b'r' => self.number(4).and_then(|key| self.remember(key)),
            0x94 => self.remember(self.memo.len()),
            b'h' => self.number(1).and_then(|key| self.recall(key)),
            b'j' => self.number(4).and_then(|key| self.recall(key)),
            b']' | b')' => self.push(Object::List(vec![])),
            b't' => self.since_mark().and_then(|items| self.push(Object::List(items))),
            0x85..=0x87 => self.tuple(usize::from(instruction - 0x84)),
            b'}' => self.push(Object::Dictionary(vec![])),
            b'a' => self.pop().and_then(|item| self.extend(&[item])),
            b'e' => self.since_mark().and_then(|items| self.extend(&items)),
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value])
            }
            b'u' => self.since_mark().and_then(|items| self.set(&items)),
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.function(module, name)
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (&self.objects[module], &self.objects[name]) {
                    (&Object::Text(module), &Object::Text(name)) => self.function(module, name),
                    _ => Err(PickleError::Inconsistent),
                }
            }
            b'R' => self.call(),
            b'b' => self.build(),
            other => Err(PickleError::Instruction(other)),
        }
    }

    fn extend(&mut self, items: &[usize]) -> Result<bool, PickleError> {
        let top = self.top()?;
        let Object::List(list) = &mut self.objects[top] else { return Err(PickleError::Inconsistent) };
        list.extend(items);
        Ok(true)
    }

    fn set(&mut self, items: &[usize]) -> Result<bool, PickleError> {
        let top = self.top()?;
        let Object::Dictionary(entries) = &mut self.objects[top] else { return Err(PickleError::Inconsistent) };
        let (pairs, []) = items.as_chunks::<2>() else { return Err(PickleError::Inconsistent) };
        entries.extend(pairs);
        Ok(true)
    }

    fn function(&mut self, module: &str, name: &str) -> Result<bool, PickleError> {
        let function = match (module, name) {
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => Function::Reconstruct,
            ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => Function::FromBuffer,
            ("numpy", "ndarray") => Function::Ndarray,
            ("numpy", "dtype") => Function::Dtype,
            ("_codecs", "encode") => Function::Encode,
            _ => {
                let name = format!("{module}.{name}");
                return Err(PickleError::Function(name.chars().take(80).collect()));
            }
        };
        self.push(Object::Function(function))
    }

    /// What a function would return for the arguments on the stack.
    fn call(&mut self) -> Result<bool, PickleError> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Object::List(arguments) = self.objects[arguments].clone() else { return Err(PickleError::Inconsistent) };
        let Object::Function(function) = self.objects[function] else { return Err(PickleError::Inconsistent) };
        let result = match (function, &arguments[..]) {
            // Filled by what comes next.
            (Function::Reconstruct, _) => Object::Nothing,
            (Function::FromBuffer, &[contents, kind, shape, order]) => {
                self.check_type(kind)?;
                Object::Array(self.shape(shape)?, contents, matches!(self.objects[order], Object::Text("F")))
            }
            (Function::Dtype, &[name, ..]) => {
                let is_bytes = match &self.objects[name] {
                    Object::Bytes(name) => [&b"u1"[..], b"|u1", b"uint8"].contains(&&**name),
                    Object::Text(name) => ["u1", "|u1", "uint8"].contains(name),
                    _ => false,
                };
                if is_bytes { Object::ByteType } else { Object::Nothing }
            }
            // Bytes as protocol 2 of Python 3 has them: each is the character of its number.
            (Function::Encode, &[text, _encoding]) => {
                let Object::Text(text) = self.objects[text] else { return Err(PickleError::Inconsistent) };
                self.budget = self.budget.checked_sub(text.len()).ok_or(PickleError::TooLarge)?;
                let bytes = text.chars().map(|char| u8::try_from(u32::from(char)));
                Object::Bytes(Cow::Owned(bytes.collect::<Result<_, _>>().map_err(|_| PickleError::Inconsistent)?))
            }
            _ => return Err(PickleError::Inconsistent),
        };
        self.push(result)
    }

    /// Sets the state of the object below it on the stack.
    fn build(&mut self) -> Result<bool, PickleError> {
        let (state, object) = (self.pop()?, self.top()?);
        if let Object::ByteType = self.objects[object] {
            return Ok(true);
        }
        let Object::List(state) = self.objects[state].clone() else { return Err(PickleError::Inconsistent) };
        if let &[_version, shape, kind, is_fortran, contents] = &state[..] {
            self.check_type(kind)?;
            let by_columns = !matches!(self.objects[is_fortran], Object::Number(0));
            self.objects[object] = Object::Array(self.shape(shape)?, contents, by_columns);
        }
        Ok(true)
    }

    fn check_type(&self, kind: usize) -> Result<(), PickleError> {
        if let Object::ByteType = self.objects[kind] {
            Ok(())
        } else {
            Err(PickleError::Unexpected("types of numbers"))
        }
    }

    fn shape(&self, shape: usize) -> Result<Vec<usize>, PickleError> {
        let Object::List(sides) = &self.objects[shape] else { return Err(PickleError::Inconsistent) };
        let side = |side: &usize| match self.objects[*side] {
            Object::Number(side) => usize::try_from(side).ok(),
            _ => None,
        };
        sides.iter().map(side).collect::<Option<_>>().ok_or(PickleError::Inconsistent)
    }
}
